// The one list of cases: odd sizes that no vector width divides, the edges of routing, and the shapes of training
// (timed).
#include <algorithm>
#include <random>

#include "case.h"

namespace scmoe::test {
namespace {

std::mt19937_64& random_engine() {
  static std::mt19937_64 engine(20240405);
  return engine;
}

// Values a float can hold, so that every backend starts from the same numbers.
Value normal(int64_t elements, double deviation = 1, double mean = 0) {
  std::normal_distribution<float> draw(static_cast<float>(mean), static_cast<float>(deviation));
  Value value;
  value.real.resize(elements);
  for (double& x : value.real) x = draw(random_engine());
  return value;
}

Value constants(std::vector<double> numbers) {
  for (double& x : numbers) x = static_cast<float>(x);
  return {false, std::move(numbers), {}};
}

Value integers(std::vector<int32_t> numbers) {
  return {true, {}, std::move(numbers)};
}

Value tokens(int64_t batch, int64_t sequence, int64_t vocabulary) {
  std::uniform_int_distribution<int32_t> draw(0, static_cast<int32_t>(vocabulary - 1));
  Value value{true, {}, std::vector<int32_t>(batch * (sequence + 1))};
  for (int32_t& token : value.whole) token = draw(random_engine());
  return value;
}

std::string text(std::initializer_list<std::pair<const char*, int64_t>> sizes) {
  std::string label;
  for (const auto& [name, size] : sizes)
    label += (label.empty() ? "" : " ") + std::string(name) + "=" + std::to_string(size);
  return label;
}

// --- Backbone.

Case embedding(int64_t b, int64_t t, int64_t d, int64_t v) {
  Case c{.op = "embedding", .label = text({{"B", b}, {"T", t}, {"d", d}, {"V", v}})};
  c.attrs.batch = b, c.attrs.sequence = t, c.attrs.dim = d;
  c.inputs = {{"tokens", tokens(b, t, v)}, {"wte", normal(v * d)}, {"wpe", normal(t * d)}};
  c.outputs = {{"x", b * t * d}};
  return c;
}

Case layernorm(int64_t n, int64_t d) {
  Case c{.op = "layernorm", .label = text({{"rows", n}, {"d", d}})};
  c.attrs.rows = n, c.attrs.dim = d;
  c.inputs = {{"x", normal(n * d, 2, 3)}, {"gamma", normal(d, 0.5, 1)}, {"beta", normal(d)}};
  c.outputs = {{"y", n * d}, {"mean", n}, {"rstd", n}};
  return c;
}

Case linear(int64_t n, int64_t i, int64_t o, bool residual) {
  Case c{.op = "linear", .label = text({{"rows", n}, {"in", i}, {"out", o}}) + (residual ? " residual" : "")};
  c.attrs.rows = n, c.attrs.in = i, c.attrs.out = o;
  c.inputs = {{"x", normal(n * i)}, {"w", normal(o * i)}, {"b", normal(o)}};
  if (residual) c.inputs["residual"] = normal(n * o);
  c.outputs = {{"y", n * o}};
  c.flops = 2.0 * n * i * o;
  return c;
}

Case attention(int64_t b, int64_t t, int64_t h, int64_t d, double deviation = 1) {
  Case c{.op = "attention", .label = text({{"B", b}, {"T", t}, {"H", h}, {"d", d}})};
  c.attrs.batch = b, c.attrs.sequence = t, c.attrs.heads = h, c.attrs.dim = d;
  c.inputs = {{"qkv", normal(b * t * 3 * d, deviation)}};
  c.outputs = {{"o", b * t * d}, {"lse", b * h * t}};
  c.flops = 4.0 * b * d * t * (t + 1) / 2;  // both products, below the diagonal
  return c;
}

Case gelu(int64_t n, int64_t d) {
  Case c{.op = "gelu", .label = text({{"rows", n}, {"d", d}})};
  c.attrs.rows = n, c.attrs.dim = d;
  c.inputs = {{"x", normal(n * d, 3)}};
  c.outputs = {{"y", n * d}};
  return c;
}

Case shared_gate(int64_t n, int64_t d) {
  Case c{.op = "shared_gate", .label = text({{"rows", n}, {"d", d}})};
  c.attrs.rows = n, c.attrs.dim = d;
  c.inputs = {{"x", normal(n * d)}, {"w", normal(d, 0.2)}};
  c.outputs = {{"c", n}};
  return c;
}

Case gated_add(int64_t n, int64_t d) {
  Case c{.op = "gated_add", .label = text({{"rows", n}, {"d", d}})};
  c.attrs.rows = n, c.attrs.dim = d;
  c.inputs = {{"a", normal(n * d)}, {"s", normal(n * d)}, {"c", normal(n)}, {"m", normal(n * d)}};
  c.outputs = {{"y", n * d}};
  return c;
}

Case add(int64_t n, int64_t d) {
  Case c{.op = "add", .label = text({{"rows", n}, {"d", d}})};
  c.attrs.rows = n, c.attrs.dim = d;
  c.inputs = {{"a", normal(n * d)}, {"b", normal(n * d)}};
  c.outputs = {{"y", n * d}};
  return c;
}

Case cross_entropy(int64_t b, int64_t t, int64_t v, bool gradient) {
  Case c{.op = "cross_entropy", .label = text({{"B", b}, {"T", t}, {"V", v}}) + (gradient ? "" : " loss only")};
  c.attrs.batch = b, c.attrs.sequence = t, c.attrs.vocabulary = v;
  c.attrs.scale = 1.0f / static_cast<float>(2 * b * t);
  c.inputs = {{"logits", normal(b * t * v, 4)}, {"tokens", tokens(b, t, v)}};
  c.outputs = {{"loss", 1}};
  if (gradient) c.outputs["dlogits"] = b * t * v;
  return c;
}

// --- Routing.

enum class Choices { kSpread, kSkewed, kOneExpert };

struct Route {
  int64_t rows, dim, experts, k, capacity;
  Choices choices = Choices::kSpread;
};

std::string label_of(const Route& r) {
  const char* names[] = {"", " last expert empty", " all to one expert"};
  return text({{"rows", r.rows}, {"d", r.dim}, {"E", r.experts}, {"k", r.k}, {"C", r.capacity}}) +
         names[static_cast<int>(r.choices)];
}

void set_route(Case& c, const Route& r) {
  c.attrs.rows = r.rows, c.attrs.dim = r.dim, c.attrs.experts = r.experts, c.attrs.topK = r.k,
  c.attrs.capacity = r.capacity;
}

// expert, slot and counts as a router would have left them; returns the number of routed rows.
int64_t add_routing(Case& c, const Route& r) {
  std::vector<int32_t> expert(r.rows * r.k), slot(r.rows * r.k), counts(r.experts, 0);
  const int64_t open = r.choices == Choices::kSkewed ? std::max<int64_t>(r.k, r.experts - 1) : r.experts;
  std::uniform_int_distribution<int32_t> draw(0, static_cast<int32_t>(open - 1));
  for (int64_t n = 0; n < r.rows; n++)
    for (int64_t i = 0; i < r.k; i++) do
        expert[n * r.k + i] =
            r.choices == Choices::kOneExpert ? static_cast<int32_t>(r.experts - 1 - i) : draw(random_engine());
      while (i > 0 && expert[n * r.k + i] == expert[n * r.k]);
  for (int64_t i = 0; i < r.k; i++)
    for (int64_t n = 0; n < r.rows; n++) {
      const int32_t place = counts[expert[n * r.k + i]]++;
      slot[n * r.k + i] = place < r.capacity ? place : -1;
    }
  int64_t routed = 0;
  for (int32_t count : counts) routed += std::min<int64_t>(count, r.capacity);
  c.inputs["expert"] = integers(expert), c.inputs["slot"] = integers(slot), c.inputs["counts"] = integers(counts);
  return routed;
}

// [ranks, experts], each row the choices of one rank's tokens.
Value all_counts(int64_t ranks, int64_t rows, int64_t experts, Choices choices) {
  Value value{true, {}, std::vector<int32_t>(ranks * experts, 0)};
  const int64_t open = choices == Choices::kSkewed ? std::max<int64_t>(1, experts - 1) : experts;
  std::uniform_int_distribution<int64_t> draw(0, open - 1);
  for (int64_t q = 0; q < ranks; q++)
    for (int64_t n = 0; n < rows; n++)
      value.whole[q * experts + (choices == Choices::kOneExpert ? experts - 1 : draw(random_engine()))]++;
  return value;
}

Case router(const Route& r, int64_t world = 2) {
  Case c{.op = "router", .label = label_of(r)};
  set_route(c, r);
  c.attrs.worldSize = world, c.attrs.auxCoefficient = 0.25f;
  c.inputs = {{"x", normal(r.rows * r.dim)},
              {"w", normal(r.experts * r.dim, 0.5)},
              {"allCounts", all_counts(world, r.rows * r.k, r.experts, Choices::kSkewed)}};
  c.outputs = {{"probs", r.rows * r.experts},
               {"expert", r.rows * r.k},
               {"weight", r.rows * r.k},
               {"slot", r.rows * r.k},
               {"counts", r.experts}};
  c.flops = 2.0 * r.rows * r.dim * r.experts;
  return c;
}

// Experts in pairs that score the same: ties go to the lower index.
Case tied_router(const Route& r) {
  Case c = router(r);
  c.label += " tied in pairs";
  c.differentiable = false;
  Value& w = c.inputs["w"];
  for (int64_t e = 1; e < r.experts; e += 2)
    std::copy_n(w.real.begin() + (e - 1) * r.dim, r.dim, w.real.begin() + e * r.dim);
  return c;
}

Case aux_loss(const Route& r, int64_t world) {
  Case c{.op = "aux_loss", .label = label_of(r)};
  set_route(c, r);
  c.attrs.worldSize = world;
  c.inputs = {{"probs", normal(r.rows * r.experts, 0.1, 0.5)},
              {"allCounts", all_counts(world, r.rows * r.k, r.experts, r.choices)}};
  c.outputs = {{"loss", 1}};
  return c;
}

Case permute(const Route& r) {
  Case c{.op = "permute", .label = label_of(r)};
  set_route(c, r);
  c.inputs["x"] = normal(r.rows * r.dim);
  add_routing(c, r);
  c.outputs = {{"rows", r.rows * r.k * r.dim}};
  return c;
}

Case unpermute(const Route& r) {
  Case c{.op = "unpermute", .label = label_of(r)};
  set_route(c, r);
  add_routing(c, r);
  c.inputs["rows"] = normal(r.rows * r.k * r.dim);
  c.inputs["weight"] = normal(r.rows * r.k);
  c.outputs = {{"y", r.rows * r.dim}};
  return c;
}

// --- Experts. ranks in the world, `size` of them share the experts; the case runs on `rank`.
struct Experts {
  int64_t ranks, size, rank, tokens, experts, capacity;
  Choices choices = Choices::kSpread;
};

void set_experts(Case& c, const Experts& x) {
  c.attrs.experts = x.experts, c.attrs.capacity = x.capacity, c.attrs.rank = x.rank,
  c.attrs.expertParallelSize = x.size;
  c.inputs["allCounts"] = all_counts(x.ranks, x.tokens, x.experts, x.choices);
  const char* names[] = {"", " last expert empty", " all to one expert"};
  c.label += text({{"ranks", x.ranks},
                   {"P", x.size},
                   {"rank", x.rank},
                   {"tokens", x.tokens},
                   {"E", x.experts},
                   {"C", x.capacity}}) +
             names[static_cast<int>(x.choices)];
}

Case grouped_linear(const Experts& x, int64_t i, int64_t o) {
  Case c{.op = "grouped_linear", .label = text({{"in", i}, {"out", o}}) + " "};
  set_experts(c, x);
  const int64_t local = x.experts / x.size, rows = x.size * x.tokens;
  c.attrs.in = i, c.attrs.out = o;
  c.inputs["x"] = normal(rows * i), c.inputs["w"] = normal(local * o * i), c.inputs["b"] = normal(local * o);
  c.outputs = {{"y", rows * o}};
  c.flops = 2.0 * rows / x.size * i * o;  // when evenly spread
  return c;
}

Case routed_gelu(const Experts& x, int64_t d) {
  Case c{.op = "gelu", .label = text({{"d", d}}) + " "};
  set_experts(c, x);
  c.attrs.dim = d;
  c.inputs["x"] = normal(x.size * x.tokens * d);
  c.outputs = {{"y", x.size * x.tokens * d}};
  return c;
}

// --- Update.

Case zero(std::vector<int64_t> sizes) {
  Case c{.op = "zero", .label = std::to_string(sizes.size()) + " buffers"};
  for (int64_t n : sizes) c.list.push_back(normal(n));
  return c;
}

Case square_sum(std::vector<int64_t> sizes) {
  Case c = zero(sizes);
  c.op = "square_sum";
  c.outputs = {{"y", 1}};
  return c;
}

Case global_norm(double dense, double expert) {
  Case c{.op = "global_norm", .label = std::to_string(dense) + " and " + std::to_string(expert)};
  c.inputs = {{"dense", constants({dense})}, {"expert", constants({expert})}};
  c.outputs = {{"norm", 1}};
  return c;
}

// m, v and w start from what a run would have: v is never negative.
Case adamw(int64_t n, double norm, double clip) {
  Case c{.op = "adamw", .label = text({{"elements", n}}) + " norm=" + std::to_string(norm)};
  c.attrs.elements = n, c.attrs.beta1 = 0.9f, c.attrs.beta2 = 0.95f, c.attrs.epsilon = 1e-8f,
  c.attrs.weightDecay = 0.1f;
  c.attrs.clip = static_cast<float>(clip);
  c.inputs = {{"g", normal(n)}, {"hyper", constants({3e-3, 0.271, 0.142625, 0})}, {"norm", constants({norm})}};
  c.outputs = {{"w", n}, {"m", n}, {"v", n}};
  c.inputs["v"] = normal(n);
  for (double& x : c.inputs["v"].real) x = x * x;
  return c;
}

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

}  // namespace

const std::vector<Case>& all_cases() {
  static const std::vector<Case> cases = build();
  return cases;
}

}  // namespace scmoe::test
