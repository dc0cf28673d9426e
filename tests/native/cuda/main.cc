// cuda_ops_test [CASE]   runs the one list of cases (tests/native/ops) on the CUDA backend with
// emulated kernels;
//                        with CASE, only cases whose op and label begin with it
// cuda_ops_test --long   checks long sums alone
// cuda_ops_test --names  prints the ops of the backend. All print lines as ops_test does.
// SCMOE_EMULATOR_SEED draws other orders of threads and blocks.
#include <cstdio>
#include <cstring>
#include <exception>
#include <string>

#include "check.h"
#include "device.h"

int main(int count, char** words) {
  using namespace scmoe;
  try {
    if (count > 1 && std::strcmp(words[1], "--names") == 0) {
      for (int i = 0; i < cuda_backend()->num_ops; i++) std::printf("table\tcuda\t%s\n", cuda_backend()->ops[i].name);
      return 0;
    }
    if (count > 1 && std::strcmp(words[1], "--long") == 0) {
      // The others would take minutes, or divide their sums as these do.
      bool right = true;
      for (const char* op : {"router", "grouped_linear", "layernorm rows=50257"})
        right &= test::check_long_sums({cuda_backend()}, op);
      return right ? 0 : 1;
    }
    const bool sound = test::check_emulator();
    const std::string filter = count > 1 ? words[1] : "";
    const bool single = test::check_backend(*cuda_backend(), filter);
    const bool half = test::check_backend_in_bf16(*cuda_backend(), filter);
    const bool fast = !filter.empty() || test::check_tensor_cores();
    return sound && single && half && fast ? 0 : 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 2;
  }
}
