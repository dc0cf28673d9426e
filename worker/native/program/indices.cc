#include "indices.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "attributes.h"
#include "error.h"

namespace scmoe {
namespace {

int input_named(const OpSpec& spec, std::string_view name) {
  for (size_t i = 0; i < spec.inputs.size(); ++i) {
    if (name == spec.inputs[i].name) return int(i);
  }
  return -1;
}

// The fewest rows that a buffer of routed rows has room for.
int64_t room_after_dispatch(const std::vector<Buffer>& buffers, const OpSpec& spec, const Sizes& sizes,
                            const ProgramOp& op) {
  int64_t room = Count::kTooMany;
  const auto add_side = [&](const std::vector<BufferSpec>& specs, const std::vector<int>& side) {
    const std::vector<const BufferSpec*> found = given(specs, side.size(), op.attrs);
    for (size_t i = 0; i < found.size(); ++i) {
      if (found[i]->extent != Extent::kRouted) continue;
      room = std::min(room, buffers[size_t(side[i])].elements / found[i]->elements(sizes).value());
    }
  };
  add_side(spec.inputs, op.inputs);
  add_side(spec.outputs, op.outputs);
  return room;
}

[[noreturn]] void refuse(const Program& program, const ProgramOp& op, int input, int64_t place, int32_t value,
                         const std::string& wanted) {
  const Buffer& buffer = program.buffers[size_t(op.inputs[size_t(input)])];
  throw std::runtime_error("input " + std::to_string(input) + " of " + op.name + " (buffer '" + buffer.name +
                           "') holds " + std::to_string(value) + " at place " + std::to_string(place) + ", wants " +
                           wanted);
}

void check_bounds(const Program& program, const ProgramOp& op, const Indices& indices, const int32_t* numbers) {
  int32_t least = 0, most = -1;
  for (int64_t i = 0; i < indices.elements; ++i) {
    least = std::min(least, numbers[i]);
    most = std::max(most, numbers[i]);
  }
  if (least >= indices.from && most < indices.end) return;
  const auto is_wrong = [&](int32_t number) { return number < indices.from || number >= indices.end; };
  const int32_t* wrong = std::find_if(numbers, numbers + indices.elements, is_wrong);
  if (wrong == numbers + indices.elements) return;
  const std::string limit = *indices.limit == '\0' ? "" : " and below " + std::string(indices.limit);
  const std::string number = *indices.limit == '\0' ? "" : " (" + std::to_string(indices.end) + ")";
  refuse(program, op, indices.input, wrong - numbers, *wrong,
         "at least " + std::to_string(indices.from) + limit + number);
}

[[noreturn]] void refuse_rows(const ProgramOp& op, int64_t rows) {
  throw std::runtime_error("the counts of " + op.name + " keep " + std::to_string(rows) +
                           " rows, but its buffers have room for " + std::to_string(op.rows.room));
}

// Before dispatch: every kept choice has a row of its expert.
void check_places(const Program& program, const ProgramOp& op) {
  const Attrs& a = op.attrs;
  const auto numbers = [&](int input) { return static_cast<const int32_t*>(op.in[size_t(input)]); };
  const int32_t *counts = numbers(op.rows.counts), *expert = numbers(op.rows.expert), *slot = numbers(op.rows.slot);
  int64_t kept = 0;
  for (int64_t e = 0; e < a.experts; ++e) kept += std::min<int64_t>(counts[e], a.capacity);
  if (kept > op.rows.room) refuse_rows(op, kept);
  for (int64_t i = 0; i < a.rows * a.topK; ++i) {
    const int32_t count = counts[expert[i]];
    if (slot[i] < count) continue;
    refuse(program, op, op.rows.slot, i, slot[i],
           "less than " + std::to_string(count) + ", the count of expert " + std::to_string(expert[i]));
  }
}

// After dispatch: the buffers have room for the rows of all local experts.
void check_received(const ProgramOp& op) {
  const Attrs& a = op.attrs;
  const int32_t* counts = static_cast<const int32_t*>(op.in[size_t(op.rows.counts)]);
  const int64_t size = a.expertParallelSize, local = a.experts / size;
  const int64_t first_rank = a.rank / size * size, first_expert = a.rank % size * local;
  int64_t kept = 0;
  for (int64_t rank = first_rank; rank < first_rank + size; ++rank) {
    for (int64_t e = first_expert; e < first_expert + local; ++e) {
      kept += std::min<int64_t>(counts[rank * a.experts + e], a.capacity);
    }
  }
  if (kept > op.rows.room) refuse_rows(op, kept);
}

}  // namespace

void find_indices(const std::vector<Buffer>& buffers, const OpSpec& spec, const Topology& topology, ProgramOp& op) {
  if (spec.is_comm()) return;  // exchanges check the counts against both sides themselves
  const Sizes sizes{op.attrs, topology.world_size, op.inputs.size()};
  const std::vector<const BufferSpec*> inputs = given(spec.inputs, op.inputs.size(), op.attrs);
  for (size_t i = 0; i < inputs.size(); ++i) {
    const BufferSpec& input = *inputs[i];
    if (!input.indexes) continue;
    const int64_t end = input.below == nullptr ? Count::kTooMany : input.below(sizes).value();
    op.indices.push_back({int(i), input.elements(sizes).value(), input.from, end, input.limit});
  }
  if (spec.placed) {
    const Count choices = sizes[&Attrs::rows] * sizes[&Attrs::topK];
    const Count most = sizes[&Attrs::experts] * sizes[&Attrs::capacity];
    op.rows = {input_named(spec, "counts"), input_named(spec, "expert"), input_named(spec, "slot"),
               least(choices, most).value()};
  } else if (on_routed_rows(spec, op)) {
    op.rows = {spec.routed_by, -1, -1, room_after_dispatch(buffers, spec, sizes, op)};
  }
}

void check_indices(const Program& program, const ProgramOp& op) {
  for (const Indices& indices : op.indices) {
    check_bounds(program, op, indices, static_cast<const int32_t*>(op.in[size_t(indices.input)]));
  }
  if (op.rows.counts < 0) return;
  op.rows.slot >= 0 ? check_places(program, op) : check_received(op);
}

void check_uploaded(const Program& program, const char* persistent) {
  for (const ProgramOp& op : program.ops) {
    for (const Indices& indices : op.indices) {
      const Buffer& buffer = program.buffers[size_t(op.inputs[size_t(indices.input)])];
      if (!buffer.persistent) continue;
      try {
        check_bounds(program, op, indices, reinterpret_cast<const int32_t*>(persistent + buffer.offset));
      } catch (const std::runtime_error& error) {
        Error failure(kBadProgram, error.what());
        failure.op = op.label;
        throw failure;
      }
    }
  }
}

}  // namespace scmoe
