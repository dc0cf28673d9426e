// The file that scmoe-run executes (bench/gpu/export.ts writes it): programs of one rank, the
// initial values of their buffers, and the programs that make up an optimizer step. Nothing in it
// depends on the hardware.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "program/program.h"

namespace scmoe::run {

// The initial values of a persistent buffer. A random value depends only on the seed and its place.
struct Fill {
  enum class Kind { kNormal, kConstant, kIntegers, kValues };
  std::string buffer;
  Kind kind = Kind::kConstant;
  double scale = 0;   // kNormal: standard deviation; kConstant: the value
  int64_t below = 1;  // kIntegers: 0 to below - 1
  uint64_t seed = 0;
  int64_t first = 0;           // kNormal, kIntegers: place of the buffer in a larger one
  std::vector<double> values;  // kValues
};

struct File {
  std::string title;
  Topology topology;
  std::vector<std::string> programs;  // JSON, as Engine::load takes it
  std::vector<std::string> step;      // names of programs, in the order in which a step runs them
  std::vector<Fill> fills;
  // Floating-point buffers whose first element is reported after each step.
  std::vector<std::string> report;
  // By label of an op: the part of the layer that it computes (worker/program/program.ts).
  std::map<std::string, std::string> parts;
  double tokens = 0, flops = 0;  // per step
  int64_t bytes = 0;             // sum of the largest persistent and the largest transient region
};

// Throws BAD_PROGRAM with the field, the value and what was expected. A file that holds a bare
// program is a step of that program on zeroed buffers.
File read_file(const std::string& path);

// The value of element i of the buffer.
double value_at(const Fill& fill, int64_t i);

}  // namespace scmoe::run
