// The programs that are loaded, and the persistent buffers that they share.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "executor/executor.h"
#include "program/program.h"

namespace scmoe {

class Programs {
 public:
  // Parses and checks a program (worker/program/program.ts), makes room for it and binds it. A
  // program of the same name is replaced. Throws BAD_PROGRAM or OUT_OF_MEMORY.
  void load(std::string_view json, const Topology& topology, Executor& executor);

  // Throws std::invalid_argument, naming `call`, if there is none of this name.
  const LoadedProgram& find(const std::string& name, const char* call) const;
  const Buffer& persistent_buffer(const std::string& name, const char* call) const;

  void clear();

 private:
  void check_persistent(const Program& program, int64_t present_bytes) const;

  std::map<std::string, std::unique_ptr<LoadedProgram>> programs_;
  std::map<std::string, Buffer> persistent_buffers_;
};

}  // namespace scmoe
