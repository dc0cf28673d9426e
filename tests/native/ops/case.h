// What one case is: an op, its attributes and named values. The same list drives correctness, gradients and timing.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "backend.h"
#include "program/op_table.h"

namespace scmoe::test {

// Rows of the op table.
const std::vector<BufferSpec>& inputs_of(const std::string& op);
const std::vector<BufferSpec>& outputs_of(const std::string& op);
std::vector<std::string> backward_of(const std::string& op);
bool takes(const std::string& op, const std::string& attr);

// The contents of a buffer: doubles stand for f32 until the op runs.
struct Value {
  bool integer = false;
  std::vector<double> real;
  std::vector<int32_t> whole;
  int64_t elements() const { return static_cast<int64_t>(integer ? whole.size() : real.size()); }
};

struct Case {
  std::string op, label;
  Attrs attrs{};
  std::map<std::string, Value> inputs{};     // also what only the backward op reads, as allCounts of the router
  std::map<std::string, int64_t> outputs{};  // elements; an optional output left out is absent
  std::vector<Value> list{};                 // instead, for ops over a list of buffers
  int64_t routed = 0;                        // rows that a buffer of routed rows has room for; 0: none are
  double flops = 0;                          // of the forward op; 0: limited by memory, reported as GB/s
  bool differentiable = true;                // false where a small step changes a choice
  bool bf16 = false;                         // what activations are kept in; else f32
};

// The case with activations that bf16 can hold, kept so; nothing where its op has none.
std::optional<Case> in_bf16(const Case& c);
double rounded_to_bf16(double x);

// The cases that are checked.
const std::vector<Case>& all_cases();

// The shapes of training, to be timed: one rank's 2048 tokens, or a sequence of 512, of a model 512 wide with 8
// experts.
std::vector<Case> timed_cases();

}  // namespace scmoe::test
