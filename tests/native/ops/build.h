// Cases by shape. Short names as in worker/program/ops.ts: n rows, d model width, b sequences, t positions, h heads, v
// vocabulary.
#pragma once

#include <initializer_list>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "case.h"

namespace scmoe::test {

std::mt19937_64& random_engine();

// Values a float can hold, so that every backend starts from the same numbers.
Value normal(int64_t elements, double deviation = 1, double mean = 0);
Value constants(std::vector<double> numbers);
Value integers(std::vector<int32_t> numbers);
Value tokens(int64_t batch, int64_t sequence, int64_t vocabulary);

// "rows=7 d=33"
std::string text(std::initializer_list<std::pair<const char*, int64_t>> sizes);

Case embedding(int64_t b, int64_t t, int64_t d, int64_t v);
Case layernorm(int64_t n, int64_t d);
Case linear(int64_t n, int64_t i, int64_t o, bool residual);
Case attention(int64_t b, int64_t t, int64_t h, int64_t d, double deviation = 1);
Case gelu(int64_t n, int64_t d);
Case shared_gate(int64_t n, int64_t d);
Case gated_add(int64_t n, int64_t d);
Case add(int64_t n, int64_t d);
Case cross_entropy(int64_t b, int64_t t, int64_t v, bool gradient);
Case zero(std::vector<int64_t> sizes);
Case square_sum(std::vector<int64_t> sizes);
Case global_norm(double dense, double expert);
Case adamw(int64_t n, double norm, double clip);

enum class Choices { kSpread, kSkewed, kOneExpert };

struct Route {
  int64_t rows, dim, experts, k, capacity;
  Choices choices = Choices::kSpread;
};

// `ranks` in the world, `size` of them share the experts; the case runs on `rank`.
struct Experts {
  int64_t ranks, size, rank, tokens, experts, capacity;
  Choices choices = Choices::kSpread;
};

Case router(const Route& r, int64_t world = 2);
Case tied_router(const Route& r);
Case aux_loss(const Route& r, int64_t world);
Case permute(const Route& r);
Case unpermute(const Route& r);
Case grouped_linear(const Experts& x, int64_t i, int64_t o);
Case routed_gelu(const Experts& x, int64_t d);

}  // namespace scmoe::test
