// Compares kernels with the reference on every instruction set. Bits must be equal for 1, 2 and 3
// threads.
#include "check.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

namespace scmoe::test {
namespace {

// The results of attention in bf16 have bounds of their own.
bool has_bound(const Call& call, const std::string& output) {
  return call.bf16 && (output == "o" || output == "dqkv");
}

// Half a unit in the last place of a bf16 value is up to 2^-8 of it.
double tolerance_of(const Call& call, const std::string& output) {
  if (!call.bf16 || has_bound(call, output)) return kTolerance;
  for (const BufferSpec& spec : outputs_of(call.op))
    if (spec.name == output.substr(0, output.find(' ')) && spec.type == BufferType::kActivation) return 4e-3;
  return kTolerance;
}

std::vector<Call> calls_of(const Case& c) {
  std::vector<Call> calls{forward_call(c)};
  if (takes(c.op, "accumulate")) calls.push_back(forward_call(c, true));
  if (!c.differentiable) return calls;
  for (const std::string& op : backward_of(c.op)) {
    calls.push_back(backward_call(c, op, false));
    if (takes(op, "accumulate")) calls.push_back(backward_call(c, op, true));
  }
  return calls;
}

bool check_call(const Call& call, const std::string& label, const Backend& backend) {
  Call plain = call;
  plain.bf16 = false;
  const auto want = run<float>(plain, *reference_backend());
  const auto alone = run<float>(call, backend, 1);
  std::string problem;
  for (const auto& [name, value] : want)
    if (problem.empty()) {
      const bool bounded = has_bound(call, name);
      const std::vector<double> bound = bounded ? attention_bound(call, value.real) : std::vector<double>{};
      problem = difference(name, alone.at(name), value, tolerance_of(call, name), bound).first;
    }
  for (int threads : {2, 3}) {
    const auto together = run<float>(call, backend, threads);
    for (const auto& [name, value] : alone)
      if (problem.empty() && (value.real != together.at(name).real || value.whole != together.at(name).whole))
        problem = name + " has other bits with " + std::to_string(threads) + " threads than with 1";
  }
  return report("kernel", call.op, backend.name, label + (call.attrs.accumulate ? " accumulate" : ""), problem);
}

}  // namespace

bool report(const std::string& what, const std::string& op, const std::string& where, const std::string& label,
            const std::string& problem) {
  std::printf("%s\t%s\t%s\t%s\t%s\n", what.c_str(), op.c_str(), where.c_str(), label.c_str(),
              problem.empty() ? "ok" : problem.c_str());
  return problem.empty();
}

double root_mean_square(const std::vector<double>& x) {
  double sum = 0;
  for (double v : x) sum += v * v;
  return x.empty() ? 0 : std::sqrt(sum / static_cast<double>(x.size()));
}

Difference difference(const std::string& name, const Value& got, const Value& want, double tolerance,
                      const std::vector<double>& bound) {
  Difference found;
  char text[200];
  for (size_t i = 0; i < want.whole.size(); i++) {
    if (got.whole[i] == want.whole[i]) continue;
    std::snprintf(text, sizeof text, "%s[%zu] is %d, not %d", name.c_str(), i, got.whole[i], want.whole[i]);
    if (found.count++ == 0) found.first = text;
  }
  const double typical = root_mean_square(want.real);
  for (size_t i = 0; i < want.real.size(); i++) {
    const double error = std::abs(got.real[i] - want.real[i]) - (bound.empty() ? 0 : bound[i]);
    if (error <= tolerance * std::max(std::abs(want.real[i]), typical)) continue;  // false for NaN
    std::snprintf(text, sizeof text, "%s[%zu] is %.9g, not %.9g", name.c_str(), i, got.real[i], want.real[i]);
    if (found.count++ == 0) found.first = text;
  }
  return found;
}

const Value* find(const std::vector<std::pair<std::string, Value>>& values, const std::string& name) {
  for (const auto& [key, value] : values)
    if (key == name) return &value;
  return nullptr;
}

Value* find(std::vector<std::pair<std::string, Value>>& values, const std::string& name) {
  for (auto& [key, value] : values)
    if (key == name) return &value;
  return nullptr;
}

std::vector<const Backend*> backends_here() {
  const char* before = std::getenv("SCMOE_CPU_ISA");
  const std::string restore = before ? before : "";
  std::vector<const Backend*> found;
  for (const char* isa : {"avx512", "avx2", "baseline"}) {
    setenv("SCMOE_CPU_ISA", isa, 1);
    try {
      found.push_back(cpu_backend());
    } catch (const std::exception&) {
      continue;  // this machine does not have it
    }
  }
  before ? setenv("SCMOE_CPU_ISA", restore.c_str(), 1) : unsetenv("SCMOE_CPU_ISA");
  return found;
}

bool check_backend(const Backend& backend, const std::string& filter) {
  bool right = true;
  for (const Case& c : all_cases()) {
    if (!(c.op + " " + c.label).starts_with(filter)) continue;
    for (const Call& call : calls_of(c)) right &= check_call(call, c.label, backend);
  }
  return check_properties(backend, filter) && right;
}

bool check_backend_in_bf16(const Backend& backend, const std::string& filter) {
  bool right = true;
  for (const Case& c : all_cases()) {
    if (!(c.op + " " + c.label).starts_with(filter)) continue;
    const std::optional<Case> half = in_bf16(c);
    if (!half) continue;
    for (const Call& call : calls_of(*half)) right &= check_call(call, half->label, backend);
    right &= check_chunks(*half, backend);
  }
  return right;
}

bool check_kernels() {
  bool right = true;
  for (const Backend* backend : backends_here()) right &= check_backend(*backend);
  return check_properties(*reference_backend()) && right;
}

}  // namespace scmoe::test
