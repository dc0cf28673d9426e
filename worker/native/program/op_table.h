// The op table of worker/program/ops.ts, as the loader checks programs against it. tests/native holds the two equal.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "backend.h"

namespace scmoe {

// Smallest number of elements of each input and output, in the table's order; 0: not known before the run, or any.
// In double: attributes come from a file, and their products must not overflow.
struct Extents {
  std::vector<double> in, out;
};

struct OpSpec {
  const char* name;
  bool comm;
  // Names as in ops.ts: `?` may be left out, `...` any number, `+=` accumulated into, `#` of a chunk's rows, `*` may be
  // bf16 on a device.
  const char* inputs;
  const char* outputs;
  const char* attrs;
  Extents (*extents)(const Attrs& attrs, double world_size);
};

const std::vector<OpSpec>& op_table();
const OpSpec* find_op(std::string_view name);

// Words of a row: "x w b residual?" -> {"x", "w", "b", "residual?"}.
std::vector<std::string> words(const char* row);

}  // namespace scmoe
