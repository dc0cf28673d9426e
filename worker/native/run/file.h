// What scmoe-run executes (bench/gpu/export.ts writes it): programs of one rank, what their buffers hold before, and
// what an optimizer step is made of. Nothing in it depends on the hardware.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "program/program.h"

namespace scmoe::run {

// What a persistent buffer holds. Random numbers are a function of seed and place alone.
struct Fill {
  enum class Kind { kNormal, kConstant, kIntegers, kValues };
  std::string buffer;
  Kind kind = Kind::kConstant;
  double scale = 0;   // kNormal: standard deviation; kConstant: the value
  int64_t below = 1;  // kIntegers: 0 to below - 1
  uint64_t seed = 0;
  int64_t first = 0;           // random values are those of a larger buffer, from this place on
  std::vector<double> values;  // kValues
};

struct File {
  std::string title;
  Topology topology;
  std::vector<std::string> programs;  // JSON, as Engine::load takes it
  std::vector<std::string> step;      // names of programs, in the order a step runs them
  std::vector<Fill> fills;
  std::vector<std::string> report;           // floating-point buffers whose first element is reported after each step
  std::map<std::string, std::string> parts;  // of ops by label: what of the layer they are (worker/program/program.ts)
  double tokens = 0, flops = 0;              // of a step
  int64_t bytes = 0;                         // of the largest persistent and the largest transient memory together
};

// Throws BAD_PROGRAM naming what is wrong. A file that is one program is a step of that program, its buffers zero.
File read_file(const std::string& path);

// Element i of a fill's buffer.
double value_at(const Fill& fill, int64_t i);

}  // namespace scmoe::run
