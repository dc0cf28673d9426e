// Checks that products of bf16 run on tensor cores. Results alone do not show it: the plain kernels
// give the same ones, only slower.
#include "check.h"
#include "cuda_bf16.h"
#include "device.h"

namespace scmoe::test {
namespace {

// Cases with rows of 16 bytes, and with heads of a width for which attention has tensor kernels.
bool fits(const Case& c) {
  if (c.op == "attention") return c.attrs.dim / c.attrs.heads == 64 || c.attrs.dim / c.attrs.heads == 128;
  return c.op == "grouped_linear" && c.attrs.in % 8 == 0 && c.attrs.out % 8 == 0;
}

bool check_call(const Call& call, const std::string& label) {
  const int64_t before = emulator::matrices_multiplied;
  run<float>(call, *cuda_backend());
  const bool used = emulator::matrices_multiplied > before;
  return report("tensor cores", call.op, "cuda", label, used ? "" : "not used");
}

}  // namespace

bool check_tensor_cores() {
  bool right = true;
  for (const Case& c : all_cases()) {
    if (!fits(c)) continue;
    const Case half = in_bf16(c).value();
    right &= check_call(forward_call(half), half.label);
    for (const std::string& op : backward_of(c.op)) right &= check_call(backward_call(half, op, false), half.label);
  }
  return right;
}

}  // namespace scmoe::test
