#include "buffers.h"

#include <algorithm>

#include "attributes.h"

namespace scmoe {
namespace {

const char* name_of(DType dtype) {
  return dtype == DType::kI32 ? "i32" : dtype == DType::kBF16 ? "bf16" : "f32";
}

// A buffer of an op together with its description in the op's row.
struct Bound {
  const BufferSpec* spec;
  const Buffer* buffer;
  std::string name;  // in messages: "input 'x' of linear (buffer 'norm.y')"
};

// "x, w, b (if bias is 1), residual (optional)"
std::string listed(const std::vector<BufferSpec>& specs) {
  std::string text;
  for (const BufferSpec& spec : specs) {
    text += (text.empty() ? "" : ", ") + std::string(spec.name);
    if (spec.when != nullptr) text += " (if " + std::string(spec.when) + " is " + std::to_string(spec.is) + ")";
    if (spec.optional) text += " (optional)";
    if (spec.repeated) text += " (one or more)";
  }
  return text.empty() ? "none" : text;
}

struct Side {
  const char* name;  // "input" or "output"
  const std::vector<BufferSpec>& specs;
  const std::vector<int>& indices;
};

void bind_side(const ParsedOp& parsed, const Side& side, std::vector<Bound>& bound) {
  const std::string& op = parsed.op.name;
  const std::vector<const BufferSpec*> specs = given(side.specs, side.indices.size(), parsed.op.attrs);
  if (specs.size() != side.indices.size() || (specs.empty() && !side.specs.empty())) {
    const std::string count = std::to_string(side.indices.size());
    parsed.from.fail(op + " has " + count + " " + side.name + "s, wants " + listed(side.specs));
  }
  for (size_t i = 0; i < specs.size(); ++i) {
    const Buffer& buffer = parsed.buffers[size_t(side.indices[i])];
    const std::string name = side.name + (" '" + std::string(specs[i]->name)) + "' of " + op;
    bound.push_back({specs[i], &buffer, name + " (buffer '" + buffer.name + "')"});
  }
}

// All activations of an op have the type of the first of them.
void check_types(const JsonObject& from, const std::vector<Bound>& bound) {
  const Bound* first = nullptr;
  for (const Bound& each : bound) {
    const DType found = each.buffer->dtype;
    DType wanted = found;
    if (each.spec->type == BufferType::kF32) wanted = DType::kF32;
    if (each.spec->type == BufferType::kI32) wanted = DType::kI32;
    if (each.spec->type == BufferType::kActivation) {
      if (first != nullptr) wanted = first->buffer->dtype;
      if (first == nullptr && found == DType::kI32) wanted = DType::kF32;
      if (first == nullptr) first = &each;
    }
    if (found == wanted) continue;
    const bool other = each.spec->type == BufferType::kActivation && first != &each;
    const std::string reason = other ? ", as " + first->name + " is" : "";
    from.fail(each.name + " is " + name_of(found) + ", wants " + name_of(wanted) + reason);
  }
}

// The number of rows for which each buffer of routed rows must have room. Only the counts of a run
// say how many rows there are, so the buffers are compared with each other: see Routed in
// worker/program/op-spec.ts.
Count routed_rows(const ParsedOp& parsed, const Sizes& sizes, const std::vector<Bound>& bound) {
  const Attrs& attrs = parsed.op.attrs;
  if (!on_routed_rows(parsed.spec, parsed.op)) return Count(attrs.rows);
  int64_t held = 0;
  for (const Bound& each : bound) {
    if (each.spec->extent != Extent::kRouted) continue;
    held = std::max(held, each.buffer->elements / each.spec->elements(sizes).value());
  }
  // Before dispatch there may be expertParallelSize times fewer rows than after it.
  const bool exchange = parsed.spec.collective == Collective::kDispatch;
  const int64_t shares = exchange ? attrs.expertParallelSize : 1;
  const int64_t most = (Count(attrs.experts) * Count(attrs.capacity)).value();
  return Count(std::max(attrs.rows, std::min((held + shares - 1) / shares, most)));
}

void check_sizes(const ParsedOp& parsed, const std::vector<Bound>& bound) {
  const Sizes sizes{parsed.op.attrs, parsed.topology.world_size, parsed.op.inputs.size()};
  const Count rows = routed_rows(parsed, sizes, bound);
  for (const Bound& each : bound) {
    const Extent extent = each.spec->extent;
    if (extent != Extent::kElements && extent != Extent::kRouted) continue;
    const bool routed = extent == Extent::kRouted;
    const Count size = each.spec->elements(sizes);
    const int64_t wanted = (routed ? rows * size : size).value();
    if (each.buffer->elements >= wanted) continue;
    const std::string number = wanted == Count::kTooMany ? "more than any buffer has" : std::to_string(wanted);
    const std::string formula = (routed ? std::to_string(rows.value()) + " rows of " : "") + each.spec->formula;
    parsed.from.fail(each.name + " has " + std::to_string(each.buffer->elements) + " elements, wants " + number + " (" +
                     formula + "): enlarge the buffer or correct the attributes");
  }
}

// Copies are as many, and each as long, as what they are copies of. `bound`: the inputs, then the
// outputs.
void check_copies(const ParsedOp& parsed, const std::vector<Bound>& bound) {
  const size_t count = parsed.op.inputs.size(), copies = parsed.op.outputs.size();
  if (count != copies) {
    parsed.from.fail(parsed.op.name + " has " + std::to_string(count) + " inputs and " + std::to_string(copies) +
                     " outputs, wants as many of both");
  }
  for (size_t i = 0; i < count; ++i) {
    const Bound &input = bound[i], &output = bound[count + i];
    if (input.buffer->elements == output.buffer->elements) continue;
    parsed.from.fail(output.name + " has " + std::to_string(output.buffer->elements) + " elements, wants " +
                     std::to_string(input.buffer->elements) + ", as " + input.name + " has");
  }
}

// Whether two buffers have a byte in common.
bool overlap(const Buffer& a, const Buffer& b) {
  return a.persistent == b.persistent && bytes_of(a) > 0 && bytes_of(b) > 0 && a.offset < b.offset + bytes_of(b) &&
         b.offset < a.offset + bytes_of(a);
}

// An op that reads what it has just written, or writes twice to one place, computes something else
// or takes a wrong number for an index. `bound`: the inputs, then the outputs.
void check_apart(const ParsedOp& parsed, const std::vector<Bound>& bound) {
  const size_t num_inputs = parsed.op.inputs.size();
  for (size_t o = num_inputs; o < bound.size(); ++o) {
    // Shared outputs are the inputs themselves.
    for (size_t i = parsed.spec.place == Place::kShared ? num_inputs : 0; i < o; ++i) {
      const Bound &output = bound[o], &other = bound[i];
      if (!overlap(*output.buffer, *other.buffer)) continue;
      const auto names = [&](const char* name) { return other.spec->name == std::string_view(name); };
      const std::vector<const char*>& allowed = output.spec->may_be;
      const bool same = output.buffer == other.buffer;
      if (i < num_inputs && same && std::any_of(allowed.begin(), allowed.end(), names)) continue;
      parsed.from.fail(output.name + " has memory in common with " + other.name + ": give it another place");
    }
  }
}

void check_places(const ParsedOp& parsed) {
  const ProgramOp& op = parsed.op;
  if (parsed.spec.place == Place::kShared && op.inputs != op.outputs) {
    parsed.from.fail("outputs are not the inputs, but " + op.name + " works in place: list the same buffers as both");
  }
  if (parsed.spec.place != Place::kApart) return;
  for (const int output : op.outputs) {
    if (std::find(op.inputs.begin(), op.inputs.end(), output) == op.inputs.end()) continue;
    parsed.from.fail("outputs is " + std::to_string(output) + ", which is also an input, but " + op.name +
                     " does not work in place: give it another buffer");
  }
}

}  // namespace

void check_buffers(const ParsedOp& parsed) {
  const OpSpec& spec = parsed.spec;
  std::vector<Bound> bound;
  bind_side(parsed, {"input", spec.inputs, parsed.op.inputs}, bound);
  bind_side(parsed, {"output", spec.outputs, parsed.op.outputs}, bound);
  check_types(parsed.from, bound);
  check_sizes(parsed, bound);
  if (!spec.outputs.empty() && spec.outputs[0].extent == Extent::kAsInputs) check_copies(parsed, bound);
  check_places(parsed);
  check_apart(parsed, bound);
}

}  // namespace scmoe
