// ops_test                   checks kernels, their properties, long sums and gradients; exit code 1
//                            if a check fails
// ops_test --kernels         leaves out long sums and gradients, which run the same code many more
//                            times
// ops_test --long [op]       checks long sums alone
// ops_test --names           prints the ops of every backend
// ops_test --time [op] [n]   times training shapes on n threads, or on one
// ops_test --peak [n]        prints the rate of sgemm in GFLOP/s
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>

#include "call.h"
#include "check.h"
#include "cpu/reference/reference.h"

namespace {

void print_names() {
  using namespace scmoe;
  for (const Backend* backend : {cpu_backend(), reference_backend(), reference_backend_f64()}) {
    for (int i = 0; i < backend->num_ops; i++) std::printf("table\t%s\t%s\n", backend->name, backend->ops[i].name);
  }
}

}  // namespace

int main(int count, char** words) {
  const auto word = [&](int i) { return i < count ? words[i] : ""; };
  try {
    if (std::strcmp(word(1), "--names") == 0) {
      print_names();
      return 0;
    }
    if (std::strcmp(word(1), "--peak") == 0) {
      scmoe::test::print_peak(std::max(1, std::atoi(word(2))));
      return 0;
    }
    if (std::strcmp(word(1), "--time") == 0) {
      const bool first_is_number = std::atoi(word(2)) > 0;
      const int threads = std::atoi(word(first_is_number ? 2 : 3));
      return scmoe::test::time_ops(first_is_number ? "" : word(2), threads > 0 ? threads : 1) ? 0 : 1;
    }
    if (std::strcmp(word(1), "--long") == 0)
      return scmoe::test::check_long_sums(scmoe::test::backends_here(), word(2)) ? 0 : 1;
    bool right = scmoe::test::check_kernels();
    if (std::strcmp(word(1), "--kernels") == 0) return right ? 0 : 1;
    right &= scmoe::test::check_long_sums(scmoe::test::backends_here());
    return scmoe::test::check_gradients() && right ? 0 : 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 2;
  }
}
