// A case: an op, its attributes and named values. The same list of cases is used for correctness,
// gradients and timing.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "backend.h"
#include "program/op_table.h"

namespace scmoe::test {

// Lookups in the op table.
const std::vector<BufferSpec>& inputs_of(const std::string& op);
const std::vector<BufferSpec>& outputs_of(const std::string& op);
std::vector<std::string> backward_of(const std::string& op);
bool takes(const std::string& op, const std::string& attr);

// The contents of a buffer. f32 values are doubles until the op runs.
struct Value {
  bool integer = false;
  std::vector<double> real;
  std::vector<int32_t> whole;
  int64_t elements() const { return static_cast<int64_t>(integer ? whole.size() : real.size()); }
};

struct Case {
  std::string op, label;
  Attrs attrs{};
  // Also inputs of only the backward op, e.g. allCounts of the router.
  std::map<std::string, Value> inputs{};
  std::map<std::string, int64_t> outputs{};  // elements; an optional output left out is absent
  std::vector<Value> list{};                 // takes the place of both for ops over a list
  int64_t routed = 0;                        // rows in a buffer of routed rows; 0: there is none
  // Operations of the forward op. 0: it is limited by memory, and its rate is in GB/s.
  double flops = 0;
  bool differentiable = true;  // false if a small step changes a choice
  bool smooth = true;          // false if a gradient changes too much within a small step
  bool bf16 = false;           // whether activations are bf16
};

// The case with activations rounded to bf16 and kept in that type; nothing if its op has no
// activations.
std::optional<Case> in_bf16(const Case& c);
double rounded_to_bf16(double x);

// The cases that are checked.
const std::vector<Case>& all_cases();

// The cases that are timed, with shapes of training: one rank's 2048 tokens, or a sequence of 512,
// of a model that is 512 wide and has 8 experts.
std::vector<Case> timed_cases();

}  // namespace scmoe::test
