#include <algorithm>
#include <numeric>

#include "build.h"

namespace scmoe::test {
namespace {

std::string label_of(const Route& r) {
  const char* names[] = {"", " last expert empty", " all to one expert"};
  return text({{"rows", r.rows}, {"d", r.dim}, {"E", r.experts}, {"k", r.k}, {"C", r.capacity}}) +
         names[static_cast<int>(r.choices)];
}

void set_route(Case& c, const Route& r) {
  c.attrs.rows = r.rows, c.attrs.dim = r.dim, c.attrs.experts = r.experts, c.attrs.topK = r.k,
  c.attrs.capacity = r.capacity;
}

// Sets expert, slot and counts as a router would. Returns the number of routed rows.
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

void set_experts(Case& c, const Experts& x) {
  c.attrs.experts = x.experts, c.attrs.capacity = x.capacity, c.attrs.rank = x.rank,
  c.attrs.expertParallelSize = x.size;
  c.routed = x.size * x.tokens;
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

// For each token an expert that it may not choose: the one that it scores highest for even tokens,
// a random one for odd tokens.
Value taken_experts(const Case& c, const Route& r) {
  std::uniform_int_distribution<int32_t> draw(0, static_cast<int32_t>(r.experts - 1));
  Value taken{true, {}, std::vector<int32_t>(r.rows)};
  const double *x = c.inputs.at("x").real.data(), *w = c.inputs.at("w").real.data();
  for (int64_t n = 0; n < r.rows; n++) {
    std::vector<double> scores(r.experts);
    for (int64_t e = 0; e < r.experts; e++)
      scores[e] = std::inner_product(x + n * r.dim, x + (n + 1) * r.dim, w + e * r.dim, 0.0);
    const auto best = std::max_element(scores.begin(), scores.end()) - scores.begin();
    taken.whole[n] = n % 2 == 0 ? static_cast<int32_t>(best) : draw(random_engine());
  }
  return taken;
}

}  // namespace

Case router(const Route& r, RouterExtras extras, int64_t world) {
  Case c{.op = "router", .label = label_of(r) + mark(extras.taken, "taken") + mark(extras.lse, "lse")};
  set_route(c, r);
  c.attrs.worldSize = world, c.attrs.auxCoefficient = 0.25f, c.attrs.zCoefficient = 0.5f;
  c.inputs = {{"x", normal(r.rows * r.dim)},
              {"w", normal(r.experts * r.dim, 0.5)},
              {"allCounts", all_counts(world, r.rows * r.k, r.experts, Choices::kSkewed)}};
  if (extras.taken) c.inputs["taken"] = taken_experts(c, r);
  c.outputs = {{"probs", r.rows * r.experts},
               {"expert", r.rows * r.k},
               {"weight", r.rows * r.k},
               {"slot", r.rows * r.k},
               {"counts", r.experts}};
  if (extras.lse) c.outputs["lse"] = r.rows;
  c.flops = 2.0 * static_cast<double>(r.rows * r.dim * r.experts);
  return c;
}

Case tied_router(const Route& r) {
  Case c = router(r);
  c.label += " tied in pairs";
  c.differentiable = false;
  Value& w = c.inputs["w"];
  for (int64_t e = 1; e < r.experts; e += 2)
    std::copy_n(w.real.begin() + (e - 1) * r.dim, r.dim, w.real.begin() + e * r.dim);
  return c;
}

Case steep_router(const Route& r, RouterExtras extras) {
  Case c = router(r, extras);
  c.label += " steep";
  c.smooth = false;
  for (double& w : c.inputs["w"].real) w *= 40;
  return c;
}

Case aux_loss(const Route& r, int64_t world) {
  Case c{.op = "aux_loss", .label = label_of(r)};
  set_route(c, r);
  c.attrs.worldSize = world, c.attrs.scale = 0.75f;
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

Case grouped_linear(const Experts& x, int64_t i, int64_t o, bool bias) {
  Case c{.op = "grouped_linear", .label = text({{"in", i}, {"out", o}}) + " "};
  set_experts(c, x);
  c.label += mark(!bias, "no bias");
  const int64_t local = x.experts / x.size, rows = c.routed;
  c.attrs.in = i, c.attrs.out = o;
  c.inputs["x"] = normal(rows * i), c.inputs["w"] = normal(local * o * i);
  if (bias) c.inputs["b"] = normal(local * o);
  c.outputs = {{"y", rows * o}};
  c.flops = 2.0 * static_cast<double>(x.tokens * i * o);  // if tokens are evenly spread
  return c;
}

Case routed_activation(const char* op, const Experts& x, int64_t d) {
  Case c{.op = op, .label = text({{"d", d}}) + " "};
  set_experts(c, x);
  c.attrs.dim = d;
  c.inputs["x"] = normal(c.routed * d * (c.op == "swiglu" ? 2 : 1));
  c.outputs = {{"y", c.routed * d}};
  return c;
}

}  // namespace scmoe::test
