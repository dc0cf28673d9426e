#include "engine/engine.h"

#include <future>
#include <set>

#include "mesh/members.h"

namespace scmoe {
namespace {

const EngineOptions& checked(const EngineOptions& options) {
  const auto& [rank, world_size, expert_parallel_size] = options.topology;
  const auto reject = [](const std::string& what) { throw std::invalid_argument("engine options: " + what); };
  if (world_size < 1) reject("worldSize is " + std::to_string(world_size) + ", wants >= 1");
  if (rank < 0 || rank >= world_size) {
    reject("rank is " + std::to_string(rank) + ", wants 0 to " + std::to_string(world_size - 1));
  }
  if (expert_parallel_size < 1 || world_size % expert_parallel_size != 0) {
    reject("expertParallelSize is " + std::to_string(expert_parallel_size) + ", wants a divisor of worldSize, " +
           std::to_string(world_size));
  }
  if (options.compute_threads < 1) {
    reject("computeThreads is " + std::to_string(options.compute_threads) + ", wants >= 1");
  }
  if (options.timeout.count() < 1) reject("timeoutMilliseconds wants >= 1");
  return options;
}

}  // namespace

Engine::Engine(const EngineOptions& options, const Backend* backend)
    : Engine(options, [backend](const EngineOptions& checked, Communicator& communicator, Interrupt& interrupt) {
        return make_host_executor(checked, backend, communicator, interrupt);
      }) {}

Engine::Engine(const EngineOptions& options, const MakeExecutor& make_executor)
    : options_(checked(options)),
      communicator_(options.topology, options.timeout, interrupt_),
      executor_(make_executor(options_, communicator_, interrupt_)) {
  const auto opened = std::make_shared<std::promise<void>>();
  compute_.post([this, opened] {
    try {
      executor_->open();
      opened->set_value();
    } catch (...) {
      opened->set_exception(std::current_exception());
    }
  });
  opened->get_future().get();
}

int Engine::listen(int port) {
  check_alive();
  if (port < 0 || port > 65535) throw std::invalid_argument("port is " + std::to_string(port) + ", wants 0 to 65535");
  if (listener_) throw std::logic_error("listen: already listening on port " + std::to_string(local_port(listener_)));
  listener_ = listen_on(port);
  return local_port(listener_);
}

void Engine::connect(std::vector<PeerAddress> peers, const TokenDigest& token, Done done) {
  check_alive();
  const auto [rank, world_size, expert_parallel_size] = options_.topology;
  if (int(peers.size()) != world_size) {
    throw std::invalid_argument("connect: " + std::to_string(peers.size()) + " peers given, worldSize is " +
                                std::to_string(world_size));
  }
  for (int peer = 0; peer < rank; ++peer) {
    if (peers[peer].port >= 1 && peers[peer].port <= 65535 && !peers[peer].host.empty()) continue;
    throw std::invalid_argument("connect: peer " + std::to_string(peer) + " is '" + peers[peer].host + ":" +
                                std::to_string(peers[peer].port) + "', wants a host and a port from 1 to 65535");
  }
  if (communicator_.connected() && world_size > 1) throw std::logic_error("connect: already connected");
  if (rank < world_size - 1 && !listener_) throw std::logic_error("connect: call listen first");
  begin(std::move(done));
  comm_.post([this, options = MeshOptions{options_.topology, std::move(peers), token, options_.timeout}] {
    guard([&] {
      communicator_.attach(connect_mesh(options, listener_, interrupt_));
      listener_.reset();
      executor_->connected();
      finish();
    });
  });
}

void Engine::load(std::string_view json) {
  check_alive();
  check_idle("load");
  auto loaded = std::make_unique<LoadedProgram>();
  loaded->program = parse_program(json, executor_->backend(), options_.topology);
  Program& program = loaded->program;
  check_persistent(program);
  Memory& memory = executor_->memory();
  memory.make_room(program.persistent_bytes, program.transient_bytes);
  for (const Buffer& buffer : program.buffers) {
    if (buffer.persistent) persistent_buffers_.emplace(buffer.name, buffer);
  }
  const std::vector<int>& comm = program.queues[int(Queue::kComm)];
  loaded->peers_ahead.resize(comm.size());
  std::set<int> ahead;
  for (size_t i = comm.size(); i-- > 0;) {
    for (const int peer : peers_of(program.ops[comm[i]], options_.topology)) ahead.insert(peer);
    loaded->peers_ahead[i].assign(ahead.begin(), ahead.end());
  }
  programs_[program.name] = std::move(loaded);
  for (auto& [name, each] : programs_) {  // memory may have moved
    bind(each->program, memory.persistent(), memory.transient());
    executor_->prepare(*each);
  }
}

// Persistent buffers mean the same in every program, or one would overwrite another's parameters.
void Engine::check_persistent(const Program& program) const {
  const std::string name = "program '" + program.name + "'";
  const int64_t present = executor_->memory().persistent_bytes();
  if (present >= 0 && program.persistent_bytes > present) {
    throw Error(kBadProgram, name + ": persistentBytes is " + std::to_string(program.persistent_bytes) +
                                 ", but the first program loaded has " + std::to_string(present));
  }
  for (const Buffer& buffer : program.buffers) {
    if (!buffer.persistent) continue;
    const auto found = persistent_buffers_.find(buffer.name);
    if (found == persistent_buffers_.end()) continue;
    const Buffer& known = found->second;
    if (known.offset == buffer.offset && known.elements == buffer.elements && known.dtype == buffer.dtype) continue;
    throw Error(kBadProgram, name + ", buffer '" + buffer.name + "': offset " + std::to_string(buffer.offset) +
                                 ", elements " + std::to_string(buffer.elements) +
                                 " differ from an earlier program's: offset " + std::to_string(known.offset) +
                                 ", elements " + std::to_string(known.elements));
  }
}

void Engine::run(const std::string& name, Done done) {
  check_alive();
  const auto found = programs_.find(name);
  if (found == programs_.end()) throw std::invalid_argument("run: no program named '" + name + "' is loaded");
  const LoadedProgram& loaded = *found->second;
  const bool alone = loaded.program.queues[int(Queue::kComm)].empty();
  if (!alone && !communicator_.connected()) throw std::logic_error("run: call connect first");
  begin(std::move(done));
  times_.reset(loaded.program.ops.size());
  parts_left_ = 2;
  executor_->begin(loaded, times_);
  comm_.post([this, &loaded] { run_part(loaded, &Executor::run_comm); });
  compute_.post([this, &loaded] { run_part(loaded, &Executor::run_compute); });
}

void Engine::run_part(const LoadedProgram& loaded, Part part) {
  guard([&] { (*executor_.*part)(loaded); });
  if (parts_left_.fetch_sub(1) == 1) finish();
}

void Engine::all_reduce(std::shared_ptr<std::vector<double>> values, Done done) {
  check_alive();
  if (!communicator_.connected()) throw std::logic_error("allReduce: call connect first");
  begin(std::move(done));
  comm_.post([this, values = std::move(values)] {
    guard([&] {
      communicator_.all_reduce(*values);
      finish();
    });
  });
}

const Buffer& Engine::persistent_buffer(const std::string& name, const char* call) const {
  check_alive();
  const auto found = persistent_buffers_.find(name);
  if (found != persistent_buffers_.end()) return found->second;
  throw std::invalid_argument(std::string(call) + ": no loaded program has a persistent buffer named '" + name + "'");
}

BufferView Engine::view(const std::string& name) const {
  const Buffer& buffer = persistent_buffer(name, "view");
  return {executor_->memory().host(), buffer.offset, buffer.elements, buffer.dtype};
}

void Engine::upload(const std::vector<std::string>& buffers) {
  check_idle("upload");
  for (const std::string& name : buffers) {
    const Buffer& buffer = persistent_buffer(name, "upload");
    executor_->memory().upload(buffer.offset, bytes_of(buffer));
  }
}

void Engine::download(const std::vector<std::string>& buffers) {
  check_idle("download");
  for (const std::string& name : buffers) {
    const Buffer& buffer = persistent_buffer(name, "download");
    executor_->memory().download(buffer.offset, bytes_of(buffer));
  }
}

int64_t Engine::available_memory() const {
  check_alive();
  return executor_->memory().available();
}

void Engine::abort() {
  fail(Error(kAborted, "aborted"));
}

void Engine::close() {
  if (closed_) return;
  abort();
  closed_ = true;
  interrupt_.raise();
  executor_->stop();
  compute_.post([this] { executor_->close(); });
  comm_.join();
  compute_.join();
  communicator_.close();
  listener_.reset();
  interrupt_.close();
  programs_.clear();
  persistent_buffers_.clear();
  executor_->memory().release();
}

void Engine::check_alive() const {
  if (closed_) throw Error(kAborted, "the engine is closed");
  const std::lock_guard lock(mutex_);
  if (failure_) throw *failure_;
}

void Engine::check_idle(const char* call) const {
  const std::lock_guard lock(mutex_);
  if (pending_) throw std::logic_error(std::string(call) + ": another call is pending");
}

void Engine::begin(Done done) {
  check_alive();
  const std::lock_guard lock(mutex_);
  if (pending_) throw std::logic_error("another call is pending; the engine does one at a time");
  pending_ = std::move(done);
}

void Engine::finish() {
  Done done;
  {
    const std::lock_guard lock(mutex_);
    std::swap(done, pending_);
  }
  if (done) done(nullptr);
}

// The call fails at once; what is under way on the two threads stops at its next step, and the peers see our
// connections close. Without a call there is nothing to fail: the second thread of a run that has failed ends here.
void Engine::fail(const Error& error) {
  Done done;
  {
    const std::lock_guard lock(mutex_);
    if (!pending_) return;
    std::swap(done, pending_);
    failure_ = error;
  }
  interrupt_.raise();
  executor_->stop();
  comm_.post([this] { communicator_.close(); });
  done(&error);
}

// No exception leaves a thread's job.
void Engine::guard(const std::function<void()>& step) {
  try {
    step();
  } catch (const Error& error) {
    fail(error);
  } catch (const std::bad_alloc&) {
    fail(Error(kOutOfMemory, "no memory for the engine's own use"));
  } catch (const std::exception& error) {
    fail(Error(kInternal, error.what()));
  }
}

}  // namespace scmoe
