#include "attributes.h"

#include <algorithm>
#include <cmath>

namespace scmoe {
namespace {

using nlohmann::json;
using Object = JsonObject;

constexpr int64_t kMax = int64_t{1} << 53;  // what a JSON number can say

const struct {
  const char* name;
  int64_t Attrs::*field;
  int64_t least = 0, most = kMax;
} kIntegerAttrs[] = {
    {"rows", &Attrs::rows},
    {"dim", &Attrs::dim},
    {"in", &Attrs::in},
    {"out", &Attrs::out},
    {"batch", &Attrs::batch},
    {"sequence", &Attrs::sequence},
    {"heads", &Attrs::heads, 1},
    {"keyValueHeads", &Attrs::keyValueHeads, 1},
    {"vocabulary", &Attrs::vocabulary},
    {"experts", &Attrs::experts},
    {"topK", &Attrs::topK},
    {"capacity", &Attrs::capacity},
    {"rank", &Attrs::rank},
    {"worldSize", &Attrs::worldSize},
    {"expertParallelSize", &Attrs::expertParallelSize},
    {"chunk", &Attrs::chunk, 0, 1023},
    {"chunks", &Attrs::chunks, 1, 1024},  // rows * chunks must not overflow: chunk.h
    {"elements", &Attrs::elements},
    {"coefficients", &Attrs::coefficients, 1, 2},
    {"accumulate", &Attrs::accumulate, 0, 1},
    {"bias", &Attrs::bias, 0, 1},
    {"inverse", &Attrs::inverse, 0, 1},
};

const struct {
  const char* name;
  float Attrs::*field;
} kFloatAttrs[] = {
    {"scale", &Attrs::scale},
    {"auxCoefficient", &Attrs::auxCoefficient},
    {"zCoefficient", &Attrs::zCoefficient},
    {"base", &Attrs::base},
    {"beta1", &Attrs::beta1},
    {"beta2", &Attrs::beta2},
    {"epsilon", &Attrs::epsilon},
    {"weightDecay", &Attrs::weightDecay},
    {"clip", &Attrs::clip},
};

// The activations take allCounts last; without it their rows are not routed.
bool is_dense_activation(const ProgramOp& op) {
  const bool forward = op.name == "gelu" || op.name == "swiglu";
  const bool backward = op.name == "gelu_backward" || op.name == "swiglu_backward";
  return (forward && op.inputs.size() == 1) || (backward && op.inputs.size() == 2);
}

// Attributes that may be left out: `accumulate` (0), the chunk (0 of 1), and where rows are routed if they are not.
bool optional_attr(const std::string& attr, const ProgramOp& op) {
  if (attr == "accumulate" || attr == "chunk" || attr == "chunks") return true;
  return is_dense_activation(op) && attr != "rows" && attr != "dim";
}

void parse_attr(const Object& from, const std::string& name, const json& value, ProgramOp& op) {
  const std::string field = "attr '" + name + "'";
  if (name == "direction") {
    const bool dispatch = from.word(field, value, {"dispatch", "combine"}) == 0;
    op.collective = dispatch ? Collective::kDispatch : Collective::kCombine;
    return;
  }
  if (name == "group") {
    op.group = Group(from.word(field, value, {"world", "ep", "edp"}));
    return;
  }
  for (const auto& attr : kIntegerAttrs) {
    if (name == attr.name) op.attrs.*attr.field = from.integer(field, value, attr.least, attr.most);
  }
  for (const auto& attr : kFloatAttrs) {
    if (name != attr.name) continue;
    const double number = value.is_number() ? value.get<double>() : NAN;
    if (!std::isfinite(float(number))) from.fail(field, value, "a finite number");
    op.attrs.*attr.field = float(number);
  }
}

// `attr` is `value`, but ...
[[noreturn]] void refuse(const Object& from, const char* attr, int64_t value, const std::string& why) {
  from.fail("attr '" + std::string(attr) + "' is " + std::to_string(value) + ", " + why);
}

void check_heads(const Object& from, const ProgramOp& op) {
  const Attrs& a = op.attrs;
  if (a.heads % a.keyValueHeads != 0) {
    refuse(from, "heads", a.heads, "wants a multiple of keyValueHeads, " + std::to_string(a.keyValueHeads));
  }
  const int64_t step = op.name == "rope" ? 2 : 1;  // rope turns pairs of a head's values
  if (a.dim % a.heads != 0 || a.dim / a.heads % step != 0) {
    const std::string even = step == 2 ? " times an even number" : "";
    refuse(from, "dim", a.dim, "wants a multiple of heads, " + std::to_string(a.heads) + even);
  }
}

void check_chunk(const Object& from, const ProgramOp& op) {
  const Attrs& a = op.attrs;
  if (a.chunk >= a.chunks) refuse(from, "chunk", a.chunk, "wants less than chunks, " + std::to_string(a.chunks));
  if (a.chunks > 1 && is_dense_activation(op)) refuse(from, "chunks", a.chunks, "but only routed rows have chunks");
}

// Which optional buffers must be there.
void check_given(const Object& from, const ProgramOp& op) {
  const Attrs& a = op.attrs;
  const size_t inputs = op.inputs.size();
  if (op.name == "linear" && (a.bias ? inputs < 3 : inputs > 3)) {
    refuse(from, "bias", a.bias, "with " + std::to_string(inputs) + " inputs: b is given where it is 1, only there");
  }
  if (op.name == "gated_add_backward" && (a.coefficients == 2) != (inputs == 4)) {
    refuse(from, "coefficients", a.coefficients, "and m is given where it is 2, only there");
  }
  if (op.name == "router") {
    const int64_t open = a.experts - (inputs > 2 ? 1 : 0);
    if (a.topK < 1 || a.topK > open) refuse(from, "topK", a.topK, "wants 1 to " + std::to_string(open));
  }
}

}  // namespace

void parse_attrs(const JsonObject& from, const OpSpec& spec, ProgramOp& op) {
  const Object attrs(from.at("attrs"), from.name + ": attrs");
  const std::vector<std::string> known = words(spec.attrs);
  const auto takes = [&](const char* name) { return std::find(known.begin(), known.end(), name) != known.end(); };
  for (const std::string& name : known) {
    const auto found = attrs.value.find(name);
    if (found != attrs.value.end()) {
      parse_attr(from, name, *found, op);
    } else if (!optional_attr(name, op)) {
      from.fail("attr '" + name + "' is missing");
    }
  }
  for (const auto& [name, value] : attrs.value.items()) {
    if (takes(name.c_str())) continue;
    from.fail("attr '" + name + "' is " + shown(value) + ", but " + op.name + " has no such attribute");
  }
  if (takes("heads")) check_heads(from, op);
  if (takes("chunk")) check_chunk(from, op);
  check_given(from, op);
}

}  // namespace scmoe
