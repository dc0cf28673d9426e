// Makes cases by shape, with short names as in worker/program/ops.ts: n rows, d model width, b
// sequences, t positions, h heads, v vocabulary.
#pragma once

#include <initializer_list>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "case.h"

namespace scmoe::test {

std::mt19937_64& random_engine();

// Values that a float can hold, so that every backend starts from the same numbers.
Value normal(int64_t elements, double deviation = 1, double mean = 0);
Value constants(std::vector<double> numbers);
Value integers(std::vector<int32_t> numbers);
Value tokens(int64_t batch, int64_t sequence, int64_t vocabulary);

// "rows=7 d=33"
std::string text(std::initializer_list<std::pair<const char*, int64_t>> sizes);

// "residual" -> " residual" if `is`, otherwise "".
std::string mark(bool is, const char* word);

Case embedding(int64_t b, int64_t t, int64_t d, int64_t v, bool positions = true);
Case layernorm(int64_t n, int64_t d);
Case rmsnorm(int64_t n, int64_t d);

// The optional buffers of a linear layer.
struct Extras {
  bool bias = false, residual = false;
};
Case linear(int64_t n, int64_t i, int64_t o, Extras extras = {.bias = true});

struct Heads {
  int64_t batch, sequence, heads, key_value_heads, dim;
};
Case attention(const Heads& h, double deviation = 1);
Case rope(const Heads& h, double base, bool inverse = false);

// `op` is "gelu" or "swiglu".
Case activation(const char* op, int64_t n, int64_t d);
Case shared_gate(int64_t n, int64_t d, int64_t coefficients);
Case gated_add(int64_t n, int64_t d, int64_t coefficients);
Case scale_rows(int64_t n, int64_t d);
Case add(int64_t n, int64_t d);
Case cross_entropy(int64_t b, int64_t t, int64_t v, bool gradient);
Case z_loss(int64_t n);
Case cast(std::vector<int64_t> sizes);
Case zero(std::vector<int64_t> sizes);
Case square_sum(std::vector<int64_t> sizes);
Case global_norm(double dense, double expert);
Case adamw(int64_t n, double norm, double clip);

enum class Choices { kSpread, kSkewed, kOneExpert };

struct Route {
  int64_t rows, dim, experts, k, capacity;
  Choices choices = Choices::kSpread;
};

// There are `ranks` ranks in the world, of which `size` share the experts. The case runs on `rank`.
struct Experts {
  int64_t ranks, size, rank, tokens, experts, capacity;
  Choices choices = Choices::kSpread;
};

// With `taken`, half of the tokens may not choose the expert that they score highest, and the
// others may not choose a random one.
struct RouterExtras {
  bool taken = false, lse = false;
};
Case router(const Route& r, RouterExtras extras = {}, int64_t world = 2);
// A router whose experts score the same in pairs, so that the lower index must win.
Case tied_router(const Route& r);
// A router whose logits are so far apart that nearly all probabilities are zero in a float.
Case steep_router(const Route& r, RouterExtras extras = {});
Case aux_loss(const Route& r, int64_t world);
Case permute(const Route& r);
Case unpermute(const Route& r);
Case grouped_linear(const Experts& x, int64_t i, int64_t o, bool bias = true);
Case routed_activation(const char* op, const Experts& x, int64_t d);

}  // namespace scmoe::test
