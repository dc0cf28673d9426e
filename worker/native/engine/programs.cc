#include "engine/programs.h"

#include <set>
#include <stdexcept>
#include <utility>

#include "error.h"
#include "mesh/members.h"

namespace scmoe {
namespace {

// LoadedProgram::peers_ahead.
std::vector<std::vector<int>> peers_ahead_of(const Program& program, const Topology& topology) {
  const std::vector<int>& comm = program.queues[int(Queue::kComm)];
  std::vector<std::vector<int>> peers(comm.size());
  std::set<int> ahead;
  for (size_t i = comm.size(); i-- > 0;) {
    for (const int peer : peers_of(program.ops[size_t(comm[i])], topology)) ahead.insert(peer);
    peers[i].assign(ahead.begin(), ahead.end());
  }
  return peers;
}

}  // namespace

void Programs::load(std::string_view json, const Topology& topology, Executor& executor) {
  auto loaded = std::make_unique<LoadedProgram>();
  loaded->program = parse_program(json, executor.backend(), topology);
  const Program& program = loaded->program;
  Memory& memory = executor.memory();
  check_persistent(program, memory.persistent_bytes());
  memory.make_room(program.persistent_bytes, program.transient_bytes);
  for (const Buffer& buffer : program.buffers) {
    if (buffer.persistent) persistent_buffers_.emplace(buffer.name, buffer);
  }
  loaded->peers_ahead = peers_ahead_of(program, topology);
  programs_[program.name] = std::move(loaded);
  for (auto& [name, each] : programs_) {  // of all programs, because memory may have moved
    bind(each->program, memory.persistent(), memory.transient());
    executor.prepare(*each);
  }
}

// A persistent buffer must be the same in every program, otherwise one program would overwrite
// another's parameters.
void Programs::check_persistent(const Program& program, int64_t present_bytes) const {
  const std::string name = "program '" + program.name + "'";
  if (present_bytes >= 0 && program.persistent_bytes > present_bytes) {
    throw Error(kBadProgram, name + ": persistentBytes is " + std::to_string(program.persistent_bytes) +
                                 ", but the first program loaded has " + std::to_string(present_bytes) +
                                 "; load the program with the most persistent bytes first");
  }
  for (const Buffer& buffer : program.buffers) {
    if (!buffer.persistent) continue;
    const auto found = persistent_buffers_.find(buffer.name);
    if (found == persistent_buffers_.end()) continue;
    const Buffer& known = found->second;
    if (known.offset == buffer.offset && known.elements == buffer.elements && known.dtype == buffer.dtype) continue;
    throw Error(kBadProgram, name + ", buffer '" + buffer.name + "': offset " + std::to_string(buffer.offset) +
                                 ", elements " + std::to_string(buffer.elements) +
                                 " or dtype differ from an earlier program's: offset " + std::to_string(known.offset) +
                                 ", elements " + std::to_string(known.elements) +
                                 "; place persistent buffers alike in all programs");
  }
}

const LoadedProgram& Programs::find(const std::string& name, const char* call) const {
  const auto found = programs_.find(name);
  if (found != programs_.end()) return *found->second;
  throw std::invalid_argument(std::string(call) + ": no program named '" + name + "' is loaded");
}

const Buffer& Programs::persistent_buffer(const std::string& name, const char* call) const {
  const auto found = persistent_buffers_.find(name);
  if (found != persistent_buffers_.end()) return found->second;
  throw std::invalid_argument(std::string(call) + ": no loaded program has a persistent buffer named '" + name + "'");
}

void Programs::clear() {
  programs_.clear();
  persistent_buffers_.clear();
}

}  // namespace scmoe
