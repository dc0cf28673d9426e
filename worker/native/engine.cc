#include "engine.h"

#include <ctime>
#include <future>
#include <set>

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

// Of the calling thread, microseconds.
double thread_cpu() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return double(time.tv_sec) * 1e6 + double(time.tv_nsec) * 1e-3;
}

}  // namespace

void RunTimes::reset(size_t num_ops) {
  for (std::vector<double>* times : {&start, &end, &ready, &cpu}) times->assign(num_ops, 0);
}

Engine::Engine(const EngineOptions& options, const Backend* backend)
    : options_(checked(options)), backend_(backend), communicator_(options.topology, options.timeout, interrupt_) {
  // The stream belongs to the thread that will drive it.
  const auto created = std::make_shared<std::promise<void>>();
  compute_.post([this, created] {
    try {
      stream_ = backend_->stream_create(options_.compute_threads);
      created->set_value();
    } catch (...) {
      created->set_exception(std::current_exception());
    }
  });
  created->get_future().get();
}

std::string Engine::description() const {
  const int threads = options_.compute_threads;
  return std::string(backend_->name) + ", " + std::to_string(threads) + (threads == 1 ? " thread" : " threads");
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
      finish();
    });
  });
}

void Engine::load(std::string_view json) {
  check_alive();
  {
    const std::lock_guard lock(mutex_);
    if (pending_) throw std::logic_error("load: another call is pending");
  }
  auto loaded = std::make_unique<Loaded>();
  loaded->program = parse_program(json, *backend_, options_.topology);
  Program& program = loaded->program;
  check_persistent(program);
  allocate(program);
  for (const Buffer& buffer : program.buffers) {
    if (buffer.persistent) persistent_buffers_.emplace(buffer.name, buffer);
  }
  const std::vector<int>& comm = program.queues[int(Queue::kComm)];
  loaded->peers_ahead.resize(comm.size());
  std::set<int> ahead;
  for (size_t i = comm.size(); i-- > 0;) {
    for (const int peer : communicator_.peers_of(program.ops[comm[i]])) ahead.insert(peer);
    loaded->peers_ahead[i].assign(ahead.begin(), ahead.end());
  }
  programs_[program.name] = std::move(loaded);
  for (auto& [name, each] : programs_) bind(each->program, persistent_->data(), transient_->data());
}

// Persistent buffers mean the same in every program, or one would overwrite another's parameters.
void Engine::check_persistent(const Program& program) const {
  const std::string name = "program '" + program.name + "'";
  if (persistent_ && program.persistent_bytes > persistent_->bytes()) {
    throw Error(kBadProgram, name + ": persistentBytes is " + std::to_string(program.persistent_bytes) +
                                 ", but the first program loaded has " + std::to_string(persistent_->bytes()));
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

// One transient arena serves all programs, as only one runs at a time; when it grows, all are bound anew.
void Engine::allocate(const Program& program) {
  const bool grow = !transient_ || program.transient_bytes > transient_->bytes();
  if (persistent_ && !grow) return;
  int64_t needed = persistent_ ? persistent_->untouched_bytes() : program.persistent_bytes;
  if (grow) needed += program.transient_bytes;
  require_memory(needed);
  const auto persistent = persistent_ ? persistent_ : std::make_shared<Arena>(program.persistent_bytes);
  if (grow) transient_ = std::make_shared<Arena>(program.transient_bytes);
  persistent_ = persistent;  // last: a load that fails leaves no mark
}

void Engine::run(const std::string& name, Done done) {
  check_alive();
  const auto found = programs_.find(name);
  if (found == programs_.end()) throw std::invalid_argument("run: no program named '" + name + "' is loaded");
  const Loaded& loaded = *found->second;
  const bool alone = loaded.program.queues[int(Queue::kComm)].empty();
  if (!alone && !communicator_.connected()) throw std::logic_error("run: call connect first");
  begin(std::move(done));
  times_.reset(loaded.program.ops.size());
  finished_[0] = finished_[1] = 0;
  queues_left_ = 2;
  started_ = Clock::now();
  comm_.post([this, &loaded] { run_queue(loaded, Queue::kComm); });
  compute_.post([this, &loaded] { run_queue(loaded, Queue::kCompute); });
}

void Engine::run_queue(const Loaded& loaded, Queue queue) {
  guard([&] { run_ops(loaded, queue); });
  if (queues_left_.fetch_sub(1) == 1) finish();
}

void Engine::run_ops(const Loaded& loaded, Queue queue) {
  const std::vector<int>& ops = loaded.program.queues[int(queue)];
  for (size_t i = 0; i < ops.size(); ++i) {
    const ProgramOp& op = loaded.program.ops[ops[i]];
    if (queue == Queue::kCompute) {
      await_comm(op.wait_count);
    } else {
      await_compute(op.wait_count, loaded.peers_ahead[i]);
    }
    const Clock::time_point start = Clock::now();
    const double cpu = thread_cpu();
    const Clock::time_point ready = run_op(op, ops[i]);
    times_.start[ops[i]] = microseconds(start);
    times_.ready[ops[i]] = microseconds(std::max(start, ready));
    times_.cpu[ops[i]] = thread_cpu() - cpu;
    times_.end[ops[i]] = microseconds(Clock::now());
    const uint32_t finished = finished_[int(queue)].fetch_add(1) + 1;
    if (queue == Queue::kComm) finished_[int(queue)].notify_one();
    // Sequentially consistent with await_compute: either it sees the count, or we see that it sleeps.
    if (queue == Queue::kCompute && finished >= comm_sleeps_for_.load()) interrupt_.ring();
  }
}

// When the last peer had come to it; of a compute op: when it began, or earlier.
Clock::time_point Engine::run_op(const ProgramOp& op, int index) {
  if (op.queue == Queue::kComm) return communicator_.run(op, uint32_t(index));
  const OpCall call = {op.in.data(),           op.in_elements.data(), int(op.in.size()), op.out.data(),
                       op.out_elements.data(), int(op.out.size()),    &op.attrs};
  try {
    op.run(call, stream_);
  } catch (const std::exception& error) {
    Error failure(kBadProgram, error.what());
    failure.op = op.label;
    throw failure;
  }
  return {};
}

// std::atomic's wait looks a dozen times, less than a microsecond, then sleeps in the kernel: the core is free for the
// communication thread.
void Engine::await_comm(uint32_t count) {
  Progress& progress = finished_[int(Queue::kComm)];
  for (uint32_t now = progress.load();; now = progress.load()) {
    if ((now & kStop) != 0 || interrupt_.raised()) throw Error(kAborted, "aborted");
    if (now >= count) return;
    progress.wait(now);
  }
}

// Waits among the sockets rather than on the counter, so that a peer's death is noticed while there is nothing to send.
void Engine::await_compute(uint32_t count, const std::vector<int>& peers) {
  const Progress& progress = finished_[int(Queue::kCompute)];
  interrupt_.check();
  while (progress.load() < count) {
    comm_sleeps_for_ = count;
    if (progress.load() < count) communicator_.sleep(peers);
    comm_sleeps_for_ = kNever;
  }
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

BufferView Engine::view(const std::string& buffer) const {
  check_alive();
  const auto found = persistent_buffers_.find(buffer);
  if (found == persistent_buffers_.end()) {
    throw std::invalid_argument("view: no loaded program has a persistent buffer named '" + buffer + "'");
  }
  return {persistent_, found->second.offset, found->second.elements, found->second.dtype};
}

void Engine::abort() {
  fail(Error(kAborted, "aborted"));
}

void Engine::close() {
  if (closed_) return;
  abort();
  closed_ = true;
  interrupt_.raise();
  compute_.post([this] {
    if (stream_ != nullptr) backend_->stream_destroy(stream_);
  });
  comm_.join();
  compute_.join();
  communicator_.close();
  listener_.reset();
  interrupt_.close();
  programs_.clear();
  persistent_buffers_.clear();
  persistent_.reset();
  transient_.reset();
}

void Engine::check_alive() const {
  if (closed_) throw Error(kAborted, "the engine is closed");
  const std::lock_guard lock(mutex_);
  if (failure_) throw *failure_;
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
  finished_[int(Queue::kComm)].fetch_or(kStop);
  finished_[int(Queue::kComm)].notify_one();
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
    fail(Error(kAborted, error.what()));
  }
}

double Engine::microseconds(Clock::time_point time) const {
  return std::chrono::duration<double, std::micro>(time - started_).count();
}

}  // namespace scmoe
