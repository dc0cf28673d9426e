// Compares gradients with central differences, those of the reference in f64 and those of kernels
// in f32.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "check.h"
#include "cpu/reference/reference.h"

namespace scmoe::test {
namespace {

// 1e-6 and not 1e-9, because the forward results that a backward op reads were rounded to float,
// and the central differences do not see that rounding.
constexpr double kGradientTolerance = 1e-6;  // of f64 loops, against central differences

// The scalar whose gradient an op computes: <upstream, outputs>, or the loss.
struct Objective {
  const Case& c;
  Call forward;
  std::map<std::string, Value> upstream;  // gradients by output
};

double loss_of(const char* op, const Case& c, std::map<std::string, Value> inputs) {
  Case loss{.op = op, .label = "", .attrs = c.attrs, .inputs = std::move(inputs), .outputs = {{"loss", 1}}};
  loss.attrs.scale = 1;
  return run<double>(forward_call(loss), *reference_backend_f64()).at("loss").real[0];
}

// The balance loss and the z-loss, whose gradients router_backward adds.
double router_losses(const Case& c, const std::map<std::string, Value>& outputs) {
  const Attrs& a = c.attrs;
  double sum = static_cast<double>(a.auxCoefficient) *
               loss_of("aux_loss", c, {{"probs", outputs.at("probs")}, {"allCounts", c.inputs.at("allCounts")}});
  if (outputs.contains("lse")) {
    const double tokens = static_cast<double>(a.worldSize * a.rows);
    sum += static_cast<double>(a.zCoefficient) / tokens * loss_of("z_loss", c, {{"lse", outputs.at("lse")}});
  }
  return sum;
}

double value_of(const Objective& objective) {
  const auto outputs = run<double>(objective.forward, *reference_backend_f64());
  if (objective.c.op == "cross_entropy") return outputs.at("loss").real[0];
  double sum = objective.c.op == "router" ? router_losses(objective.c, outputs) : 0;
  for (const auto& [name, upstream] : objective.upstream)
    for (size_t i = 0; i < upstream.real.size(); i++) sum += upstream.real[i] * outputs.at(name).real[i];
  return sum;
}

// The gradient of a rotation is the inverse rotation, in place.
Call rope_backward(const Case& c) {
  Call call{.op = "rope", .attrs = c.attrs};
  call.attrs.inverse = 1 - c.attrs.inverse;
  Value upstream = c.inputs.at("qkv");
  std::reverse(upstream.real.begin(), upstream.real.end());
  call.out = {{"dqkv", upstream}};
  return call;
}

Objective objective_of(const Case& c, const Call& backward) {
  Objective objective{c, forward_call(c), {}};
  for (const auto& [name, value] : objective.forward.out)
    if (const Value* upstream = find(c.op == "rope" ? backward.out : backward.in, "d" + name))
      objective.upstream[name] = *upstream;
  return objective;
}

// Checks the gradient `got` of input x. `initial` is the value to which the op added it.
std::string check_input(const Objective& objective, Value& x, const std::string& name, const Value& got,
                        const Value& initial, bool added, double tolerance) {
  const double typical = root_mean_square(got.real);
  // At most 24 elements are checked.
  for (int64_t i = 0, step = std::max<int64_t>(1, x.elements() / 24 | 1); i < x.elements(); i += step) {
    const double before = x.real[i], h = 1e-5;
    x.real[i] = before + h;
    const double above = value_of(objective);
    x.real[i] = before - h;
    const double below = value_of(objective);
    x.real[i] = before;
    const double slope = (above - below) / (2 * h), want = slope + (added ? initial.real[i] : 0), is = got.real[i];
    if (slope == 0 && is == initial.real[i]) continue;  // a row without tokens keeps its gradient
    if (std::abs(is - want) <= tolerance * std::max({std::abs(want), typical, 1e-3})) continue;
    char text[200];
    std::snprintf(text, sizeof text, "%s[%ld] is %.9g, central difference %.9g", name.c_str(), static_cast<long>(i), is,
                  want);
    return text;
  }
  return "";
}

std::string check_gradient(const Case& c, const Call& backward, const std::map<std::string, Value>& got,
                           double tolerance) {
  Objective objective = objective_of(c, backward);
  const std::vector<BufferSpec>& names = outputs_of(backward.op);
  for (size_t n = 0; n < backward.out.size(); n++) {
    const auto& [name, initial] = backward.out[n];
    if (name == "loss") continue;
    const bool added = c.op != "rope" && (names[n].accumulate || (n == 0 && backward.attrs.accumulate));
    Value* x = find(objective.forward.in, name.substr(1));
    if (!x) x = find(objective.forward.out, name.substr(1));  // in place
    const std::string problem = check_input(objective, *x, name, got.at(name), initial, added, tolerance);
    if (!problem.empty()) return problem;
  }
  return "";
}

std::vector<Call> gradient_calls(const Case& c) {
  if (c.op == "rope") return {rope_backward(c)};
  if (c.op == "cross_entropy" && c.outputs.contains("dlogits")) return {forward_call(c)};
  std::vector<Call> calls;
  for (const std::string& op : backward_of(c.op)) {
    calls.push_back(backward_call(c, op, false));
    if (takes(op, "accumulate")) calls.push_back(backward_call(c, op, true));
  }
  return calls;
}

}  // namespace

bool check_gradients() {
  bool right = true;
  const Backend &reference = *reference_backend_f64(), &kernels = *cpu_backend();
  for (const Case& c : all_cases()) {
    if (!c.differentiable || !c.smooth) continue;
    for (const Call& call : gradient_calls(c)) {
      const std::string label = c.label + (call.attrs.accumulate ? " accumulate" : "");
      right &= report("gradient", call.op, reference.name, label,
                      check_gradient(c, call, run<double>(call, reference), kGradientTolerance));
      right &= report("gradient", call.op, kernels.name, label,
                      check_gradient(c, call, run<float>(call, kernels), kTolerance));
    }
  }
  return right;
}

}  // namespace scmoe::test
