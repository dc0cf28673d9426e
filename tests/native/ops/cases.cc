// The one list of cases: odd sizes that are no multiples of a vector, the edges of routing, and the
// shapes of training.
#include "build.h"

namespace scmoe::test {
namespace {

using Cases = std::vector<Case>;

constexpr Extras kBias{.bias = true}, kResidual{.residual = true}, kBoth{.bias = true, .residual = true}, kPlain{};

Cases dense_cases() {
  return {
      embedding(2, 5, 7, 11),
      embedding(3, 17, 64, 3),
      embedding(2, 6, 200, 5),
      embedding(2, 6, 33, 5, false),
      layernorm(1, 3),
      layernorm(5, 33),
      layernorm(19, 64),
      layernorm(7, 200),
      rmsnorm(1, 3),
      rmsnorm(5, 33),
      rmsnorm(19, 64),
      rmsnorm(7, 200),
      linear(1, 1, 1, kBias),
      linear(7, 13, 5, kBoth),
      linear(7, 13, 5, kPlain),
      linear(9, 35, 200, kBoth),
      linear(9, 35, 200, kResidual),
      linear(33, 65, 47, kBias),
      linear(64, 300, 96, kBoth),
      linear(64, 300, 96, kPlain),
      linear(130, 35, 1, kBoth),
      activation("gelu", 3, 5),
      activation("gelu", 257, 33),
      activation("swiglu", 3, 5),
      activation("swiglu", 257, 33),
      add(3, 5),
      add(257, 33),
      cross_entropy(1, 1, 2, true),
      cross_entropy(2, 5, 37, true),
      cross_entropy(2, 5, 256, false),
      cast({1, 37, 20000}),
      cast(std::vector<int64_t>(33, 70)),
      zero({1, 37, 20000}),
      square_sum({1, 37, 20000, 8192}),
      global_norm(9, 16),
      global_norm(0, 0),
      adamw(1, 0.5, 1),
      adamw(20011, 7, 1),
      adamw(100, 0, 1),
  };
}

// B, T, H, KV, d, where every query head has its own keys and values, or pairs share them, or all
// heads do.
Cases attention_cases() {
  return {
      attention({1, 1, 1, 1, 4}),       attention({2, 7, 3, 3, 15}),       attention({1, 70, 2, 2, 34}),
      attention({2, 129, 1, 1, 16}, 3), attention({1, 300, 1, 1, 8}),      attention({2, 9, 3, 1, 15}),
      attention({2, 70, 4, 2, 36}),     attention({1, 130, 6, 1, 30}),     attention({2, 11, 6, 3, 42}),
      attention({1, 70, 2, 1, 128}),    attention({2, 130, 1, 1, 64}),     attention({1, 97, 2, 2, 256}),

      rope({1, 1, 1, 1, 2}, 10'000),    rope({2, 7, 3, 3, 18}, 10'000),    rope({2, 7, 3, 3, 18}, 10'000, true),
      rope({2, 67, 4, 2, 40}, 10'000),  rope({1, 200, 4, 1, 72}, 500'000), rope({1, 200, 4, 1, 72}, 500'000, true),
  };
}

Cases gate_cases() {
  Cases cases;
  for (const int64_t coefficients : {1, 2}) {
    cases.insert(cases.end(),
                 {shared_gate(1, 3, coefficients), shared_gate(9, 200, coefficients), shared_gate(37, 70, coefficients),
                  gated_add(1, 3, coefficients), gated_add(37, 70, coefficients)});
  }
  cases.insert(cases.end(), {scale_rows(1, 3), scale_rows(37, 70)});
  return cases;
}

Cases router_cases() {
  return {
      router({1, 5, 2, 1, 1}),
      router({23, 17, 5, 1, 3}),
      router({40, 33, 8, 2, 7}),
      router({40, 33, 8, 2, 0}),
      router({40, 33, 8, 2, 1}),
      router({40, 33, 8, 2, 1000}),
      router({9, 16, 2, 2, 9}),
      tied_router({40, 16, 8, 2, 7}),
      tied_router({40, 16, 8, 1, 40}),
      steep_router({40, 33, 8, 2, 7}),
      steep_router({40, 33, 8, 2, 1000}, {.taken = true, .lse = true}),
      steep_router({40, 33, 8, 1, 7}, {.taken = true}),
      router({23, 17, 5, 1, 3}, {.lse = true}),
      router({40, 33, 8, 2, 7}, {.lse = true}),
      router({1, 5, 2, 1, 1}, {.taken = true}),
      router({23, 17, 5, 1, 3}, {.taken = true}),
      router({40, 33, 8, 2, 1000}, {.taken = true}),
      router({40, 33, 3, 2, 7}, {.taken = true, .lse = true}),
      aux_loss({23, 1, 5, 1, 3}, 1),
      aux_loss({40, 1, 8, 2, 3, Choices::kOneExpert}, 3),
      z_loss(1),
      z_loss(1003),
  };
}

Cases permute_cases() {
  Cases cases;
  for (const Route& r : {Route{1, 3, 2, 1, 1}, Route{23, 17, 5, 1, 3}, Route{40, 33, 8, 2, 7}, Route{40, 33, 8, 2, 0},
                         Route{40, 33, 8, 2, 1}, Route{40, 8, 4, 2, 80, Choices::kOneExpert},
                         Route{40, 8, 4, 1, 5, Choices::kOneExpert}, Route{64, 16, 4, 2, 999, Choices::kSkewed}}) {
    cases.push_back(permute(r));
    cases.push_back(unpermute(r));
  }
  return cases;
}

// Cases with experts that got no rows, more rows than the capacity, or fewer rows than there are
// chunks.
Cases expert_cases() {
  Cases cases;
  for (const Experts& x :
       {Experts{1, 1, 0, 30, 4, 100}, Experts{2, 2, 1, 30, 4, 5}, Experts{4, 2, 3, 17, 2, 100},
        Experts{2, 2, 1, 12, 6, 99, Choices::kSkewed}, Experts{2, 2, 1, 40, 4, 99, Choices::kOneExpert},
        Experts{2, 2, 0, 40, 4, 99, Choices::kOneExpert}, Experts{2, 2, 0, 40, 4, 0}, Experts{1, 1, 0, 30, 3, 1}}) {
    cases.insert(cases.end(), {grouped_linear(x, 9, 21), grouped_linear(x, 9, 21, false),
                               routed_activation("gelu", x, 19), routed_activation("swiglu", x, 19)});
  }
  // More than one tile of rows and of columns, with all edges cut, and rows of 16 bytes.
  const Experts wide{2, 2, 1, 150, 4, 999};
  cases.insert(cases.end(), {grouped_linear(wide, 40, 136), grouped_linear(wide, 136, 72, false)});
  return cases;
}

}  // namespace

const std::vector<Case>& all_cases() {
  static const Cases cases = [] {
    Cases all;
    for (const auto& part : {dense_cases, attention_cases, gate_cases, router_cases, permute_cases, expert_cases}) {
      const Cases more = part();
      all.insert(all.end(), more.begin(), more.end());
    }
    all.push_back(embedding(3, 97, 5, 4));  // more tokens than threads in a block
    return all;
  }();
  return cases;
}

std::vector<Case> timed_cases() {
  const Route route{2048, 512, 8, 2, 1024};
  const Experts experts{1, 1, 0, 2048, 8, 2048};
  return {embedding(4, 512, 512, 256),
          layernorm(2048, 512),
          rmsnorm(2048, 512),
          linear(512, 512, 512, kBoth),
          linear(512, 512, 2048, kBias),
          linear(512, 2048, 512, kBoth),
          linear(2048, 512, 256, kPlain),
          attention({1, 512, 8, 8, 512}),
          attention({1, 1024, 12, 12, 768}),
          attention({1, 1024, 12, 3, 768}),
          rope({4, 512, 8, 8, 512}, 10'000),
          activation("gelu", 512, 2048),
          activation("swiglu", 512, 2048),
          router(route),
          router(route, {.taken = true, .lse = true}),
          aux_loss(route, 2),
          z_loss(2048),
          permute(route),
          unpermute(route),
          grouped_linear(experts, 512, 1024),
          grouped_linear(experts, 512, 1024, false),
          routed_activation("gelu", experts, 1024),
          routed_activation("swiglu", experts, 1024),
          shared_gate(2048, 512, 1),
          shared_gate(2048, 512, 2),
          gated_add(2048, 512, 1),
          gated_add(2048, 512, 2),
          scale_rows(2048, 512),
          add(2048, 512),
          cross_entropy(4, 512, 256, true),
          cast({1 << 22}),
          zero({1 << 22}),
          square_sum({1 << 22}),
          global_norm(9, 16),
          adamw(1 << 20, 7, 1)};
}

}  // namespace scmoe::test
