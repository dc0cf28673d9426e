#include "engine/engine.h"

#include <future>
#include <new>
#include <stdexcept>
#include <utility>

namespace scmoe {
namespace {

const EngineOptions& checked(const EngineOptions& options) {
  const auto& [rank, world_size, expert_parallel_size] = options.topology;
  const auto require = [](bool holds, const char* field, int64_t value, const std::string& wanted) {
    if (holds) return;
    throw std::invalid_argument(std::string("engine options: ") + field + " is " + std::to_string(value) + ", wants " +
                                wanted);
  };
  require(world_size >= 1, "worldSize", world_size, "at least 1");
  require(rank >= 0 && rank < world_size, "rank", rank, "0 to " + std::to_string(world_size - 1));
  require(expert_parallel_size >= 1 && world_size % expert_parallel_size == 0, "expertParallelSize",
          expert_parallel_size, "a divisor of worldSize, " + std::to_string(world_size));
  require(options.compute_threads >= 1, "computeThreads", options.compute_threads, "at least 1");
  require(options.timeout.count() >= 1, "timeoutMilliseconds", options.timeout.count(), "at least 1");
  return options;
}

// Only lower ranks are dialled, so only their addresses matter.
void check_peers(const std::vector<PeerAddress>& peers, const Topology& topology) {
  if (int(peers.size()) != topology.world_size) {
    throw std::invalid_argument("connect: " + std::to_string(peers.size()) + " peers given, worldSize is " +
                                std::to_string(topology.world_size) + "; give the address of every rank");
  }
  for (int rank = 0; rank < topology.rank; ++rank) {
    const PeerAddress& peer = peers[size_t(rank)];
    if (peer.port >= 1 && peer.port <= 65535 && !peer.host.empty()) continue;
    throw std::invalid_argument("connect: peer " + std::to_string(rank) + " is '" + peer.host + ":" +
                                std::to_string(peer.port) + "', wants a host and a port from 1 to 65535");
  }
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
  check_peers(peers, options_.topology);
  if (communicator_.connected() && world_size > 1) throw std::logic_error("connect: already connected");
  if (rank < world_size - 1 && !listener_) throw std::logic_error("connect: call listen first");
  begin(std::move(done));
  comm_.post([this, options = MeshOptions{options_.topology, std::move(peers), token, options_.timeout}] {
    guard([&] {
      communicator_.attach(connect_mesh(options, listener_, interrupt_));
      listener_.reset();
      executor_->connected();
      call_.finish();
    });
  });
}

void Engine::load(std::string_view json) {
  check_alive();
  call_.check_idle("load");
  programs_.load(json, options_.topology, *executor_);
}

void Engine::run(const std::string& name, Done done) {
  check_alive();
  const LoadedProgram& loaded = programs_.find(name, "run");
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
  if (parts_left_.fetch_sub(1) == 1) call_.finish();
}

void Engine::all_reduce(std::shared_ptr<std::vector<double>> values, Done done) {
  check_alive();
  if (!communicator_.connected()) throw std::logic_error("allReduce: call connect first");
  begin(std::move(done));
  comm_.post([this, values = std::move(values)] {
    guard([&] {
      communicator_.all_reduce(*values);
      call_.finish();
    });
  });
}

const Buffer& Engine::persistent_buffer(const std::string& name, const char* call) const {
  check_alive();
  return programs_.persistent_buffer(name, call);
}

BufferView Engine::view(const std::string& name) const {
  const Buffer& buffer = persistent_buffer(name, "view");
  return {executor_->memory().host(), buffer.offset, buffer.elements, buffer.dtype};
}

void Engine::upload(const std::vector<std::string>& buffers) {
  call_.check_idle("upload");
  for (const std::string& name : buffers) {
    const Buffer& buffer = persistent_buffer(name, "upload");
    executor_->memory().upload(buffer.offset, bytes_of(buffer));
  }
}

void Engine::download(const std::vector<std::string>& buffers) {
  call_.check_idle("download");
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
  executor_->memory().release();
}

void Engine::check_alive() const {
  if (closed_) throw Error(kAborted, "the engine is closed");
  call_.check_alive();
}

void Engine::begin(Done done) {
  check_alive();
  call_.begin(std::move(done));
}

// The pending call fails at once, the two threads stop at their next step, and the peers see our
// connections close. Nothing happens if no call is pending: both threads of a run may fail, and the
// second one has nothing left to report.
void Engine::fail(const Error& error) {
  const Done done = call_.fail(error);
  if (!done) return;
  interrupt_.raise();
  executor_->stop();
  comm_.post([this] { communicator_.close(); });
  done(&error);
}

// Makes a step of a thread's job, which must not throw.
void Engine::guard(const std::function<void()>& step) {
  try {
    step();
  } catch (const Error& error) {
    fail(error);
  } catch (const std::bad_alloc&) {
    fail(Error(kOutOfMemory, "the engine found no memory for its own use; raise the memory limit"));
  } catch (const std::exception& error) {
    fail(Error(kInternal, error.what()));
  }
}

}  // namespace scmoe
