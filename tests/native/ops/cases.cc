// The one list of cases: odd sizes that no vector width divides, the edges of routing, and the shapes of training
// (timed).
#include "build.h"

namespace scmoe::test {
namespace {

Case timed(Case c) {
  c.timed = true;
  return c;
}

std::vector<Case> build() {
  std::vector<Case> cases = {
      embedding(2, 5, 7, 11),
      embedding(3, 17, 64, 3),
      layernorm(1, 3),
      layernorm(5, 33),
      layernorm(19, 64),
      layernorm(7, 200),
      embedding(2, 6, 200, 5),
      shared_gate(9, 200),
      linear(9, 35, 200, true),
      linear(1, 1, 1, false),
      linear(7, 13, 5, true),
      linear(33, 65, 47, false),
      linear(64, 300, 96, true),
      linear(130, 35, 1, true),
      attention(1, 1, 1, 4),
      attention(2, 7, 3, 15),
      attention(1, 70, 2, 34),
      attention(2, 129, 1, 16, 3),
      attention(1, 300, 1, 8),
      gelu(3, 5),
      gelu(257, 33),
      shared_gate(1, 3),
      shared_gate(37, 70),
      gated_add(1, 3),
      gated_add(37, 70),
      add(3, 5),
      add(257, 33),
      cross_entropy(1, 1, 2, true),
      cross_entropy(2, 5, 37, true),
      cross_entropy(2, 5, 256, false),
      router({1, 5, 2, 1, 1}),
      router({23, 17, 5, 1, 3}),
      router({40, 33, 8, 2, 7}),
      router({40, 33, 8, 2, 0}),
      router({40, 33, 8, 2, 1}),
      router({40, 33, 8, 2, 1000}),
      router({9, 16, 2, 2, 9}),
      tied_router({40, 16, 8, 2, 7}),
      tied_router({40, 16, 8, 1, 40}),
      aux_loss({23, 1, 5, 1, 3}, 1),
      aux_loss({40, 1, 8, 2, 3, Choices::kOneExpert}, 3),
      zero({1, 37, 20000}),
      square_sum({1, 37, 20000, 8192}),
      global_norm(9, 16),
      global_norm(0, 0),
      adamw(1, 0.5, 1),
      adamw(20011, 7, 1),
      adamw(100, 0, 1),
  };
  for (const Route& r : {Route{1, 3, 2, 1, 1}, Route{23, 17, 5, 1, 3}, Route{40, 33, 8, 2, 7}, Route{40, 33, 8, 2, 0},
                         Route{40, 33, 8, 2, 1}, Route{40, 8, 4, 2, 80, Choices::kOneExpert},
                         Route{40, 8, 4, 1, 5, Choices::kOneExpert}, Route{64, 16, 4, 2, 999, Choices::kSkewed}}) {
    cases.push_back(permute(r));
    cases.push_back(unpermute(r));
  }
  for (const Experts& x :
       {Experts{1, 1, 0, 30, 4, 100}, Experts{2, 2, 1, 30, 4, 5}, Experts{4, 2, 3, 17, 2, 100},
        Experts{2, 2, 1, 12, 6, 99, Choices::kSkewed}, Experts{2, 2, 1, 40, 4, 99, Choices::kOneExpert},
        Experts{2, 2, 0, 40, 4, 99, Choices::kOneExpert}, Experts{2, 2, 0, 40, 4, 0}, Experts{1, 1, 0, 30, 3, 1}}) {
    cases.push_back(grouped_linear(x, 9, 21));
    cases.push_back(routed_gelu(x, 19));
  }
  const Route route{2048, 512, 8, 2, 1024};
  const Experts experts{1, 1, 0, 2048, 8, 2048};
  for (Case& c : std::vector<Case>{embedding(4, 512, 512, 256),
                                   layernorm(2048, 512),
                                   linear(512, 512, 512, true),
                                   linear(512, 512, 2048, false),
                                   linear(512, 2048, 512, true),
                                   linear(2048, 512, 256, false),
                                   attention(1, 512, 8, 512),
                                   attention(1, 1024, 12, 768),
                                   gelu(512, 2048),
                                   router(route),
                                   aux_loss(route, 2),
                                   permute(route),
                                   unpermute(route),
                                   grouped_linear(experts, 512, 1024),
                                   routed_gelu(experts, 1024),
                                   shared_gate(2048, 512),
                                   gated_add(2048, 512),
                                   add(2048, 512),
                                   cross_entropy(4, 512, 256, true),
                                   zero({1 << 22}),
                                   square_sum({1 << 22}),
                                   global_norm(9, 16),
                                   adamw(1 << 20, 7, 1)})
    cases.push_back(timed(std::move(c)));
  return cases;
}

constexpr int64_t kTokens = 512, kDim = 512, kHeads = 8, kHidden = 2048, kExperts = 8;

void add_attention_part(std::vector<Case>& cases) {
  cases.push_back(layernorm(kTokens, kDim));
  cases.push_back(linear(kTokens, kDim, 3 * kDim, false));
  cases.push_back(attention(1, kTokens, kHeads, kDim));
  cases.push_back(linear(kTokens, kDim, kDim, true));
  cases.push_back(layernorm(kTokens, kDim));
}

void add_mlp(std::vector<Case>& cases) {
  cases.push_back(linear(kTokens, kDim, kHidden, false));
  cases.push_back(gelu(kTokens, kHidden));
  cases.push_back(linear(kTokens, kHidden, kDim, true));
}

}  // namespace

std::vector<Case> pair_cases() {
  std::vector<Case> cases;
  const Route route{kTokens, kDim, kExperts, 1, kTokens};
  const Experts experts{1, 1, 0, kTokens, kExperts, kTokens};
  add_attention_part(cases);
  add_mlp(cases);
  add_attention_part(cases);
  add_mlp(cases);  // the shared expert
  cases.push_back(layernorm(kTokens, kDim));
  cases.push_back(router(route));
  cases.push_back(permute(route));
  cases.push_back(grouped_linear(experts, kDim, kHidden));
  cases.push_back(routed_gelu(experts, kHidden));
  cases.push_back(grouped_linear(experts, kHidden, kDim));
  cases.push_back(unpermute(route));
  cases.push_back(shared_gate(kTokens, kDim));
  cases.push_back(gated_add(kTokens, kDim));
  return cases;
}

const std::vector<Case>& all_cases() {
  static const std::vector<Case> cases = build();
  return cases;
}

}  // namespace scmoe::test
