// Compares kernels with loops in float64 where a sum has many terms. A float that takes up 50,000
// terms one after another loses five times the digits that blocks lose.
#include <cmath>

#include "build.h"
#include "check.h"
#include "cpu/reference/reference.h"

namespace scmoe::test {
namespace {

constexpr int64_t kLong = 50'257;  // the vocabulary of GPT-2

// The largest error of a buffer over its size, both as root mean squares. The gradients of PyTorch
// in float32 are as far from float64 over this vocabulary.
constexpr double kMostError = 1.2e-6;

std::vector<Case> long_cases() {
  const auto shifted = [](Case c) {  // sums that grow with every term
    for (const char* name : {"x", "w"})
      if (c.inputs.contains(name))
        for (double& x : c.inputs.at(name).real) x = static_cast<float>(x + 0.5);
    return c;
  };
  return {
      shifted(linear(5, kLong, 16)),
      shifted(linear(5, 16, kLong)),
      shifted(linear(kLong, 5, 16)),
      shifted(router({kLong, 7, 5, 1, kLong})),
      layernorm(5, kLong),
      layernorm(kLong, 16),
      rmsnorm(5, kLong),
      rmsnorm(kLong, 16),
      shared_gate(kLong, 16, 1),
      shared_gate(kLong, 16, 2),
      gated_add(16, kLong, 2),
      unpermute({16, kLong, 2, 1, 16}),
      shifted(grouped_linear({1, 1, 0, kLong, 2, kLong}, 5, 3)),
      embedding(1, kLong, 16, 2),
      embedding(kLong, 1, 16, 2),
      attention({1, 4000, 1, 1, 8}),
      attention({1, 4000, 2, 1, 16}),
      cross_entropy(1, 3, kLong, true),
      aux_loss({kLong, 1, 5, 1, 3}, 1),
      z_loss(kLong),
      square_sum({kLong, 1 << 20}),
  };
}

double error_of(const Value& got, const Value& want) {
  double sum = 0;
  for (size_t i = 0; i < want.real.size(); i++) sum += std::pow(got.real[i] - want.real[i], 2);
  return want.real.empty() ? 0 : std::sqrt(sum / static_cast<double>(want.real.size()));
}

bool check_long_sum(const Call& call, const std::string& label, const Backend& backend,
                    const std::map<std::string, Value>& want) {
  const auto got = run<float>(call, backend);
  std::string problem;
  for (const auto& [name, value] : want) {
    const double error = error_of(got.at(name), value) / root_mean_square(value.real);
    if (!value.integer && !(error <= kMostError))
      problem += name + " is " + std::to_string(error * 1e6) + "e-6 away from float64; ";
  }
  return report("long sum", call.op, backend.name, label, problem);
}

}  // namespace

bool check_long_sums(const std::vector<const Backend*>& backends, const std::string& filter) {
  bool right = true;
  for (const Case& c : long_cases()) {
    if (!(c.op + " " + c.label).starts_with(filter)) continue;
    std::vector<Call> calls{forward_call(c)};
    for (const std::string& op : backward_of(c.op)) calls.push_back(backward_call(c, op, false));
    for (const Call& call : calls) {
      const auto want = run<double>(call, *reference_backend_f64());
      for (const Backend* backend : backends) right &= check_long_sum(call, c.label, *backend, want);
    }
  }
  return right;
}

}  // namespace scmoe::test
