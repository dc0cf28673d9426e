#include "build.h"

namespace scmoe::test {

std::mt19937_64& random_engine() {
  static std::mt19937_64 engine(20240405);
  return engine;
}

Value normal(int64_t elements, double deviation, double mean) {
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
  for (const auto& [name, size] : sizes) {
    if (!label.empty()) label += ' ';
    label.append(name).append("=").append(std::to_string(size));
  }
  return label;
}

std::string mark(bool is, const char* word) {
  return is ? std::string(" ") + word : "";
}

Case embedding(int64_t b, int64_t t, int64_t d, int64_t v, bool positions) {
  Case c{.op = "embedding", .label = text({{"B", b}, {"T", t}, {"d", d}, {"V", v}}) + mark(!positions, "no positions")};
  c.attrs.batch = b, c.attrs.sequence = t, c.attrs.dim = d, c.attrs.vocabulary = v;
  c.inputs = {{"tokens", tokens(b, t, v)}, {"wte", normal(v * d)}};
  if (positions) c.inputs["wpe"] = normal(t * d);
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

Case rmsnorm(int64_t n, int64_t d) {
  Case c{.op = "rmsnorm", .label = text({{"rows", n}, {"d", d}})};
  c.attrs.rows = n, c.attrs.dim = d;
  c.inputs = {{"x", normal(n * d, 2, 1)}, {"gamma", normal(d, 0.5, 1)}};
  c.outputs = {{"y", n * d}, {"rstd", n}};
  return c;
}

Case linear(int64_t n, int64_t i, int64_t o, Extras extras) {
  Case c{.op = "linear",
         .label = text({{"rows", n}, {"in", i}, {"out", o}}) + mark(!extras.bias, "no bias") +
                  mark(extras.residual, "residual")};
  c.attrs.rows = n, c.attrs.in = i, c.attrs.out = o, c.attrs.bias = extras.bias;
  c.inputs = {{"x", normal(n * i)}, {"w", normal(o * i)}};
  if (extras.bias) c.inputs["b"] = normal(o);
  if (extras.residual) c.inputs["residual"] = normal(n * o);
  c.outputs = {{"y", n * o}};
  c.flops = 2.0 * n * i * o;
  return c;
}

namespace {

// A case of an op over queries, keys and values.
Case heads_case(const char* op, const Heads& h, double deviation) {
  Case c{.op = op,
         .label = text({{"B", h.batch}, {"T", h.sequence}, {"H", h.heads}, {"KV", h.key_value_heads}, {"d", h.dim}})};
  c.attrs.batch = h.batch, c.attrs.sequence = h.sequence, c.attrs.dim = h.dim;
  c.attrs.heads = h.heads, c.attrs.keyValueHeads = h.key_value_heads;
  c.inputs = {{"qkv", normal(h.batch * h.sequence * (h.heads + 2 * h.key_value_heads) * (h.dim / h.heads), deviation)}};
  return c;
}

}  // namespace

Case attention(const Heads& h, double deviation) {
  Case c = heads_case("attention", h, deviation);
  c.outputs = {{"o", h.batch * h.sequence * h.dim}, {"lse", h.batch * h.heads * h.sequence}};
  // Both products have only the scores below the diagonal.
  c.flops = 4.0 * static_cast<double>(h.batch * h.dim) * static_cast<double>(h.sequence * (h.sequence + 1)) / 2;
  return c;
}

Case rope(const Heads& h, double base, bool inverse) {
  Case c = heads_case("rope", h, 1);
  c.label += mark(inverse, "inverse");
  c.attrs.base = static_cast<float>(base), c.attrs.inverse = inverse;
  c.outputs = {{"qkv", c.inputs["qkv"].elements()}};
  return c;
}

Case activation(const char* op, int64_t n, int64_t d) {
  Case c{.op = op, .label = text({{"rows", n}, {"d", d}})};
  c.attrs.rows = n, c.attrs.dim = d;
  c.inputs = {{"x", normal(n * d * (c.op == "swiglu" ? 2 : 1), 3)}};
  c.outputs = {{"y", n * d}};
  return c;
}

Case shared_gate(int64_t n, int64_t d, int64_t coefficients) {
  Case c{.op = "shared_gate", .label = text({{"rows", n}, {"d", d}, {"coefficients", coefficients}})};
  c.attrs.rows = n, c.attrs.dim = d, c.attrs.coefficients = coefficients;
  c.inputs = {{"x", normal(n * d)}, {"w", normal(coefficients * d, 0.2)}};
  c.outputs = {{"c", n * coefficients}};
  return c;
}

Case gated_add(int64_t n, int64_t d, int64_t coefficients) {
  Case c{.op = "gated_add", .label = text({{"rows", n}, {"d", d}, {"coefficients", coefficients}})};
  c.attrs.rows = n, c.attrs.dim = d, c.attrs.coefficients = coefficients;
  c.inputs = {{"a", normal(n * d)}, {"s", normal(n * d)}, {"c", normal(n * coefficients)}, {"m", normal(n * d)}};
  c.outputs = {{"y", n * d}};
  return c;
}

Case scale_rows(int64_t n, int64_t d) {
  Case c{.op = "scale_rows", .label = text({{"rows", n}, {"d", d}})};
  c.attrs.rows = n, c.attrs.dim = d;
  c.inputs = {{"x", normal(n * d)}, {"c", normal(n * 2)}};
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

Case z_loss(int64_t n) {
  Case c{.op = "z_loss", .label = text({{"rows", n}})};
  c.attrs.rows = n, c.attrs.scale = 0.03f;
  c.inputs = {{"lse", normal(n, 2, 1)}};
  c.outputs = {{"loss", 1}};
  return c;
}

Case zero(std::vector<int64_t> sizes) {
  Case c{.op = "zero", .label = std::to_string(sizes.size()) + " buffers"};
  for (int64_t n : sizes) c.list.push_back(normal(n));
  return c;
}

Case cast(std::vector<int64_t> sizes) {
  Case c = zero(sizes);
  c.op = "cast";
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

// m, v and w start from values that a run could have: v is never negative.
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

}  // namespace scmoe::test
