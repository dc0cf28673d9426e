// Tests that the emulator finds the mistakes it is for: runs kernels that lack one synchronisation,
// and the same kernels with it.
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <functional>
#include <vector>

#include "check.h"
#include "device.h"

namespace scmoe::test {
namespace {

constexpr int kThreads = 64, kRuns = 20;

// out[i] = the value that another thread wrote to shared memory.
template <bool kSynchronised>
void neighbour_kernel(int* out) {
  __shared__ int written[kThreads];
  written[threadIdx.x] = static_cast<int>(threadIdx.x) + 1;
  if (kSynchronised) __syncthreads();
  out[threadIdx.x] = written[(threadIdx.x + 33) % kThreads];
  __syncthreads();
  written[threadIdx.x] = 0;
}

// The second round's write must wait for the first round's reads.
template <bool kSynchronised>
void reuse_kernel(int* out) {
  __shared__ int written[kThreads];
  int sum = 0;
  for (int round = 0; round < 2; round++) {
    written[threadIdx.x] = round;
    __syncthreads();
    sum += written[(threadIdx.x + 1) % kThreads];
    if (kSynchronised) __syncthreads();
  }
  out[threadIdx.x] = sum;
}

// Lanes of a warp do not run in step.
template <bool kSynchronised>
void warp_kernel(int* out) {
  __shared__ int written[kThreads];
  written[threadIdx.x] = 0;
  __syncthreads();
  written[threadIdx.x] = static_cast<int>(threadIdx.x) + 1;
  if (kSynchronised) __syncwarp();
  out[threadIdx.x] = written[threadIdx.x ^ 1];
}

// A copy has arrived only after its thread has waited for it.
template <bool kSynchronised>
void late_copy_kernel(int* out) {
  int* const landed = static_cast<int*>(emulator::shared_memory());
  int value[4] = {1, 2, 3, static_cast<int>(threadIdx.x)};
  emulator::copy_async(landed + 4 * threadIdx.x, value, sizeof value, sizeof value);
  emulator::copy_async_commit();
  if (kSynchronised) emulator::copy_async_wait(0);
  out[threadIdx.x] = landed[4 * threadIdx.x + 3];
  if (!kSynchronised) emulator::copy_async_wait(0);
}

bool always_right(void (*kernel)(int*), const std::function<int(int)>& want) {
  for (int run = 0; run < kRuns; run++) {
    std::vector<int> out(kThreads, -1);
    emulator::launch(dim3(1), dim3(kThreads), 16 * kThreads, [&] { kernel(out.data()); });
    for (int i = 0; i < kThreads; i++)
      if (out[i] != want(i)) return false;
  }
  return true;
}

struct Pair {
  const char* what;
  void (*with)(int*);
  void (*without)(int*);
  std::function<int(int)> want;
};

// Whether the kernel ends the process. It runs in a child process.
bool dies(void (*kernel)(int*)) {
  std::fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    std::freopen("/dev/null", "w", stderr);
    std::vector<int> out(kThreads);
    emulator::launch(dim3(1), dim3(kThreads), 0, [&] { kernel(out.data()); });
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return status != 0;
}

}  // namespace

bool check_emulator() {
  const Pair pairs[] = {
      {"a read before another thread's write", neighbour_kernel<true>, neighbour_kernel<false>,
       [](int i) { return (i + 33) % kThreads + 1; }},
      {"a write before another thread's read", reuse_kernel<true>, reuse_kernel<false>, [](int) { return 1; }},
      {"lanes of a warp out of step", warp_kernel<true>, warp_kernel<false>, [](int i) { return (i ^ 1) + 1; }},
      {"a copy that was not waited for", late_copy_kernel<true>, late_copy_kernel<false>, [](int i) { return i; }},
  };
  bool right = true;
  for (const Pair& pair : pairs) {
    const bool sound = always_right(pair.with, pair.want), found = !always_right(pair.without, pair.want);
    right &= report("emulator", pair.what, "emulator", "64 threads",
                    !sound  ? "wrong although synchronised"
                    : found ? ""
                            : "not found");
  }
  const bool found = dies([](int*) {
    if (threadIdx.x > 0) __syncthreads();
  });
  return report("emulator", "a barrier that a thread never reaches", "emulator", "64 threads",
                found ? "" : "not found") &&
         right;
}

}  // namespace scmoe::test
