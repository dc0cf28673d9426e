#pragma once

#include <string>
#include <utility>
#include <vector>

#include "call.h"
#include "case.h"

namespace scmoe::test {

// One backend for each instruction set this machine can run.
std::vector<const Backend*> backends_here();

// Checks of every case; true when all hold. Each prints one line for every check it makes: what, op, where, case,
// verdict, parted by tabs; the verdict is "ok" or says what is wrong.
bool check_kernels();
// Against the reference, and its properties; the same with activations in bf16. Of cases whose op and
// label begin with `filter`.
bool check_backend(const Backend& backend, const std::string& filter = "");
bool check_backend_in_bf16(const Backend& backend, const std::string& filter = "");
bool check_gradients();
bool check_properties(const Backend& backend, const std::string& filter = "");
bool check_chunks(const Case& c, const Backend& backend);
bool report(const std::string& what, const std::string& op, const std::string& where, const std::string& label,
            const std::string& problem);

constexpr double kTolerance = 1e-4;  // of an f32 kernel, against f64-accumulated loops

double root_mean_square(const std::vector<double>& x);

struct Difference {
  int64_t count = 0;  // of values that are not equal within the tolerance
  std::string first;  // what and where; empty when there is none
};

// Equal within `tolerance`, relative to the element or to the buffer's root mean square, whichever is larger, beyond
// the element's `bound` where there are bounds; integers exactly.
Difference difference(const std::string& name, const Value& got, const Value& want, double tolerance,
                      const std::vector<double>& bound = {});

// How far rounding to bf16 may take each element of what attention, or its gradient, makes from `want`.
std::vector<double> attention_bound(const Call& call, const std::vector<double>& want);

// Null where there is none.
const Value* find(const std::vector<std::pair<std::string, Value>>& values, const std::string& name);
Value* find(std::vector<std::pair<std::string, Value>>& values, const std::string& name);

// A line for each peak (matrix product, copy) and each timed case whose op begins with `filter`: time.cc says which
// fields. False when a value is wrong.
bool time_ops(const std::string& filter, int num_threads);

// The best sgemm found at training shapes, ours and any library's that is installed.
void print_peak(int num_threads);

}  // namespace scmoe::test
