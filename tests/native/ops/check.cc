// Kernels against the reference, gradients against central differences. One tab-separated line per check: what, op,
// where, case, verdict.
#include "check.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "call.h"
#include "cpu/reference.h"

namespace scmoe::test {
namespace {

constexpr double kTolerance = 1e-4;          // f32 kernel against f64-accumulated loops
constexpr double kGradientTolerance = 1e-6;  // f64 loops against central differences

bool report(const char* what, const std::string& op, const std::string& where, const std::string& label,
            const std::string& problem) {
  std::printf("%s\t%s\t%s\t%s\t%s\n", what, op.c_str(), where.c_str(), label.c_str(),
              problem.empty() ? "ok" : problem.c_str());
  return problem.empty();
}

double root_mean_square(const std::vector<double>& x) {
  double sum = 0;
  for (double v : x) sum += v * v;
  return x.empty() ? 0 : std::sqrt(sum / static_cast<double>(x.size()));
}

// Empty when equal within tolerance, relative to the element or to the buffer's root mean square, whichever is larger.
std::string difference(const std::string& name, const Value& got, const Value& want, double tolerance) {
  char text[200];
  for (int64_t i = 0; i < static_cast<int64_t>(want.whole.size()); i++) {
    if (got.whole[i] == want.whole[i]) continue;
    std::snprintf(text, sizeof text, "%s[%ld] is %d, not %d", name.c_str(), static_cast<long>(i), got.whole[i],
                  want.whole[i]);
    return text;
  }
  const double typical = root_mean_square(want.real);
  for (size_t i = 0; i < want.real.size(); i++) {
    const double error = std::abs(got.real[i] - want.real[i]);
    if (error <= tolerance * std::max(std::abs(want.real[i]), typical)) continue;
    std::snprintf(text, sizeof text, "%s[%zu] is %.9g, not %.9g", name.c_str(), i, got.real[i], want.real[i]);
    return text;
  }
  return "";
}

std::vector<Call> calls_of(const Case& c) {
  std::vector<Call> calls{forward_call(c)};
  if (!c.differentiable) return calls;
  for (const std::string& op : backward_of(c.op)) {
    calls.push_back(backward_call(c, op, false));
    if (accumulates(op)) calls.push_back(backward_call(c, op, true));
  }
  return calls;
}

bool check_call(const Call& call, const std::string& label, const Backend& backend) {
  const auto want = run<float>(call, *reference_backend());
  const auto alone = run<float>(call, backend, 1);
  std::string problem;
  for (const auto& [name, value] : want)
    if (problem.empty()) problem = difference(name, alone.at(name), value, kTolerance);
  for (int threads : {2, 3}) {
    const auto together = run<float>(call, backend, threads);
    for (const auto& [name, value] : alone)
      if (problem.empty() && (value.real != together.at(name).real || value.whole != together.at(name).whole))
        problem = name + " has other bits with " + std::to_string(threads) + " threads than with 1";
  }
  return report("kernel", call.op, backend.name, label + (call.attrs.accumulate ? " accumulate" : ""), problem);
}

// --- Gradients: the scalar is <upstream, outputs> (for the loss, the loss; for the router plus its balance loss).

Value* find(std::vector<std::pair<std::string, Value>>& values, const std::string& name) {
  for (auto& [key, value] : values)
    if (key == name) return &value;
  return nullptr;
}

double objective(const Case& c, const Call& forward, Call& backward) {
  const Backend& reference = *reference_backend_f64();
  const auto outputs = run<double>(forward, reference);
  if (c.op == "cross_entropy") return outputs.at("loss").real[0];
  double sum = 0;
  for (const auto& [name, value] : outputs)
    if (const Value* upstream = find(backward.in, "d" + name))
      for (size_t i = 0; i < value.real.size(); i++) sum += upstream->real[i] * value.real[i];
  if (c.op == "router") {
    Case aux{.op = "aux_loss", .label = ""};
    aux.attrs = c.attrs;
    aux.inputs = {{"probs", outputs.at("probs")}, {"allCounts", c.inputs.at("allCounts")}};
    aux.outputs = {{"loss", 1}};
    sum += static_cast<double>(c.attrs.auxCoefficient) * run<double>(forward_call(aux), reference).at("loss").real[0];
  }
  return sum;
}

// Central difference at up to 24 places of each input that a gradient is returned for.
std::string check_gradient(const Case& c, Call& backward, const std::map<std::string, Value>& got, double tolerance) {
  Call forward = forward_call(c);
  const bool accumulate = backward.attrs.accumulate != 0;
  const std::vector<Name> names = outputs_of(backward.op);
  for (size_t n = 0; n < names.size(); n++) {
    const std::string& name = names[n].text;
    if (backward.op == "cross_entropy" && name == "loss") continue;
    Value& x = *find(forward.in, name.substr(1));
    const Value& initial = *find(backward.out, name);
    const bool added = names[n].accumulated || (n == 0 && accumulate);
    const double typical = root_mean_square(got.at(name).real);
    for (int64_t i = 0, step = std::max<int64_t>(1, x.elements() / 24 | 1); i < x.elements(); i += step) {
      const double before = x.real[i], h = 1e-5;
      x.real[i] = before + h;
      const double above = objective(c, forward, backward);
      x.real[i] = before - h;
      const double below = objective(c, forward, backward);
      x.real[i] = before;
      const double slope = (above - below) / (2 * h), want = slope + (added ? initial.real[i] : 0),
                   is = got.at(name).real[i];
      if (slope == 0 && is == initial.real[i]) continue;  // a row nobody was routed to is left alone
      if (std::abs(is - want) <= tolerance * std::max({std::abs(want), typical, 1e-3})) continue;
      char text[200];
      std::snprintf(text, sizeof text, "%s[%ld] is %.9g, central difference %.9g", name.c_str(), static_cast<long>(i),
                    is, want);
      return text;
    }
  }
  return "";
}

bool check_gradients(const Case& c) {
  bool right = true;
  std::vector<std::string> ops = backward_of(c.op);
  if (c.op == "cross_entropy" && c.outputs.contains("dlogits")) ops.push_back(c.op);
  for (const std::string& op : ops) {
    for (const bool accumulate : {false, true}) {
      if (accumulate && !accumulates(op)) continue;
      Call backward = op == c.op ? forward_call(c) : backward_call(c, op, accumulate);
      const std::string label = c.label + (accumulate ? " accumulate" : "");
      // What a backward op reads of the forward was rounded to float, which the step must not see: hence 1e-6, not
      // 1e-9.
      right &= report("gradient", op, "reference-f64", label,
                      check_gradient(c, backward, run<double>(backward, *reference_backend_f64()), kGradientTolerance));
      right &= report("gradient", op, cpu_backend()->name, label,
                      check_gradient(c, backward, run<float>(backward, *cpu_backend()), kTolerance));
    }
  }
  return right;
}

// --- Properties of the matrix product that schedules rely on.

// Rows computed in chunks have the bits of rows computed at once; so has a weight gradient summed over chunks.
bool check_chunks(const Backend& backend) {
  bool right = true;
  for (const Case& c : all_cases()) {
    if (c.op != "linear" || c.timed || c.attrs.rows < 7) continue;
    for (const Call& call : {forward_call(c), backward_call(c, "linear_wgrad", false)}) {
      const auto whole = run<float>(call, backend);
      const int64_t cut = c.attrs.rows / 3;
      auto parts = call.out;
      for (const auto& [from, to] : {std::pair<int64_t, int64_t>{0, cut}, {cut, c.attrs.rows}}) {
        Call part = call;
        part.attrs.rows = to - from;
        part.out = parts;
        const auto slice = [&](Value& v, int64_t width) {
          v.real = {v.real.begin() + from * width, v.real.begin() + to * width};
        };
        if (Value* x = find(part.in, "x")) slice(*x, c.attrs.in);
        if (Value* r = find(part.in, "residual")) slice(*r, c.attrs.out);
        if (Value* dy = find(part.in, "dy")) slice(*dy, c.attrs.out);
        if (Value* y = find(part.out, "y")) slice(*y, c.attrs.out);
        const auto got = run<float>(part, backend);
        for (auto& [name, value] : parts) {
          if (name == "y")
            std::copy(got.at(name).real.begin(), got.at(name).real.end(), value.real.begin() + from * c.attrs.out);
          if (name != "y") value = got.at(name);
        }
      }
      std::string problem;
      for (const auto& [name, value] : parts)
        if (name != "db" && value.real != whole.at(name).real)
          problem = name + " in chunks has other bits than at once";
      right &= report("chunks", call.op, backend.name, c.label, problem);
    }
  }
  return right;
}

}  // namespace

std::vector<const Backend*> backends_here() {
  const char* before = std::getenv("SCMOE_CPU_ISA");
  const std::string restore = before ? before : "";
  std::vector<const Backend*> found;
  for (const char* isa : {"avx512", "avx2", "baseline"}) {
    setenv("SCMOE_CPU_ISA", isa, 1);
    try {
      found.push_back(cpu_backend());
    } catch (const std::exception&) {
      continue;  // not on this machine
    }
  }
  before ? setenv("SCMOE_CPU_ISA", restore.c_str(), 1) : unsetenv("SCMOE_CPU_ISA");
  return found;
}

bool check() {
  bool right = true;
  for (const Backend* backend : backends_here()) {
    for (const Case& c : all_cases())
      for (const Call& call : c.timed ? std::vector<Call>{} : calls_of(c)) right &= check_call(call, c.label, *backend);
    right &= check_chunks(*backend);
  }
  for (const Case& c : all_cases())
    if (!c.timed && c.differentiable) right &= check_gradients(c);
  return right;
}

std::string compare(const std::vector<std::pair<std::string, Value>>& got,
                    const std::vector<std::pair<std::string, Value>>& want) {
  for (size_t i = 0; i < want.size(); i++) {
    const std::string problem = difference(want[i].first, got[i].second, want[i].second, kTolerance);
    if (!problem.empty()) return problem;
  }
  return "";
}

}  // namespace scmoe::test
