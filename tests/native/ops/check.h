#pragma once

#include <string>
#include <utility>
#include <vector>

#include "call.h"
#include "case.h"

namespace scmoe::test {

// One backend for each instruction set that this machine can run.
std::vector<const Backend*> backends_here();

// The functions below check every case and return whether all checks hold. For every check they
// print one line: what, op, where, case and verdict, separated by tabs. The verdict is "ok" or
// describes the problem.
bool check_kernels();
// These compare a backend with the reference and check its properties, the second with activations
// in bf16. They take only cases whose op and label begin with `filter`.
bool check_backend(const Backend& backend, const std::string& filter = "");
bool check_backend_in_bf16(const Backend& backend, const std::string& filter = "");
bool check_gradients();
bool check_properties(const Backend& backend, const std::string& filter = "");
bool check_chunks(const Case& c, const Backend& backend);
// Compares long sums with float64. The loops in float64 run once for all backends.
bool check_long_sums(const std::vector<const Backend*>& backends, const std::string& filter = "");
bool report(const std::string& what, const std::string& op, const std::string& where, const std::string& label,
            const std::string& problem);

constexpr double kTolerance = 1e-4;  // of f32 kernels, against loops that sum in f64

double root_mean_square(const std::vector<double>& x);

struct Difference {
  int64_t count = 0;  // values that are not equal within the tolerance
  std::string first;  // describes the first of them; empty if there is none
};

// Compares two buffers. The tolerance is relative to the element or to the buffer's root mean
// square, whichever is larger; an element's `bound`, if there are bounds, is allowed in addition.
// Integers must be equal.
Difference difference(const std::string& name, const Value& got, const Value& want, double tolerance,
                      const std::vector<double>& bound = {});

// The most by which rounding to bf16 can move each element of the result of attention, or of its
// gradient, away from `want`.
std::vector<double> attention_bound(const Call& call, const std::vector<double>& want);

// Null if there is no such value.
const Value* find(const std::vector<std::pair<std::string, Value>>& values, const std::string& name);
Value* find(std::vector<std::pair<std::string, Value>>& values, const std::string& name);

// Prints a line for each peak (matrix product, copy) and each timed case whose op begins with
// `filter`; time.cc describes the fields. Returns false if a value is wrong.
bool time_ops(const std::string& filter, int num_threads);

// Prints the best sgemm at training shapes, ours and that of each installed library.
void print_peak(int num_threads);

}  // namespace scmoe::test
