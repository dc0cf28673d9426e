// Runs programs in this process's memory. The compute thread runs ops and the communication thread
// collectives; each waits for the other's count of finished ops.
#include <algorithm>
#include <atomic>
#include <ctime>
#include <new>

#include "error.h"
#include "executor/executor.h"
#include "program/indices.h"

namespace scmoe {
namespace {

// Processor time of the calling thread in microseconds.
double thread_cpu() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return double(time.tv_sec) * 1e6 + double(time.tv_nsec) * 1e-3;
}

Error failure_of(const ProgramOp& op, const char* code, const std::string& message) {
  Error failure(code, message);
  failure.op = op.label;
  return failure;
}

class HostExecutor final : public Executor {
 public:
  HostExecutor(const ExecutorContext& context, const Backend* backend)
      : num_threads_(context.options.compute_threads),
        backend_(backend),
        communicator_(context.communicator),
        interrupt_(context.interrupt) {}

  std::string description() const override {
    return std::string(backend_->name) + ", " + std::to_string(num_threads_) +
           (num_threads_ == 1 ? " thread" : " threads");
  }
  const Backend& backend() const override { return *backend_; }
  Memory& memory() override { return memory_; }

  // Runs on the compute thread, because the stream belongs to the thread that creates it.
  void open() override { stream_ = backend_->stream_create(num_threads_); }
  void close() override {
    if (stream_ != nullptr) backend_->stream_destroy(stream_);
    stream_ = nullptr;
  }

  void begin(const LoadedProgram&, RunTimes& times) override {
    times_ = &times;
    finished_[0] = finished_[1] = 0;
    started_ = Clock::now();
  }
  void run_compute(const LoadedProgram& loaded) override { run_ops(loaded, Queue::kCompute); }
  void run_comm(const LoadedProgram& loaded) override { run_ops(loaded, Queue::kComm); }

  void stop() override {
    finished_[int(Queue::kComm)].fetch_or(kStop);
    finished_[int(Queue::kComm)].notify_one();
  }

 private:
  // How far a queue has come: the number of its finished ops, plus kStop once it has been stopped.
  using Progress = std::atomic<uint32_t>;
  static constexpr uint32_t kStop = 1u << 31;
  static constexpr uint32_t kNever = ~0u;

  void run_ops(const LoadedProgram& loaded, Queue queue);
  Clock::time_point run_op(const Program& program, const ProgramOp& op, int index);
  void await_compute(uint32_t count, const std::vector<int>& peers);
  void await_comm(uint32_t count);
  double microseconds(Clock::time_point time) const {
    return std::chrono::duration<double, std::micro>(time - started_).count();
  }

  const int num_threads_;
  const Backend* const backend_;
  Communicator& communicator_;
  Interrupt& interrupt_;
  HostMemory memory_;
  Stream* stream_ = nullptr;  // the compute thread's

  Clock::time_point started_;
  RunTimes* times_ = nullptr;
  Progress finished_[2];  // by Queue
  // The number of finished compute ops that the communication thread is waiting for. It is woken
  // for no other number: waking it after each op would take processor time from computation.
  std::atomic<uint32_t> comm_sleeps_for_{kNever};
};

void HostExecutor::run_ops(const LoadedProgram& loaded, Queue queue) {
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
    const Clock::time_point ready = run_op(loaded.program, op, ops[i]);
    times_->start[ops[i]] = microseconds(start);
    times_->ready[ops[i]] = microseconds(std::max(start, ready));
    times_->cpu[ops[i]] = thread_cpu() - cpu;
    times_->end[ops[i]] = microseconds(Clock::now());
    const uint32_t finished = finished_[int(queue)].fetch_add(1) + 1;
    if (queue == Queue::kComm) finished_[int(queue)].notify_one();
    // Sequentially consistent with await_compute: either that function sees the new count, or this
    // thread sees that the other one sleeps.
    if (queue == Queue::kCompute && finished >= comm_sleeps_for_.load()) interrupt_.ring();
  }
}

// Returns the time at which the last peer arrived at a collective; for a compute op, the epoch.
Clock::time_point HostExecutor::run_op(const Program& program, const ProgramOp& op, int index) {
  if (op.queue == Queue::kComm) return communicator_.run(op, uint32_t(index));
  try {
    check_indices(program, op);
    op.run(call_of(op), stream_);
  } catch (const std::bad_alloc&) {
    throw failure_of(op, kOutOfMemory,
                     "the op found no memory for its own use; raise the memory limit, or use a smaller model");
  } catch (const std::exception& error) {
    throw failure_of(op, kBadProgram, error.what());
  }
  return {};
}

// std::atomic::wait spins for less than a microsecond and then sleeps in the kernel, which leaves
// the core to the communication thread.
void HostExecutor::await_comm(uint32_t count) {
  Progress& progress = finished_[int(Queue::kComm)];
  for (uint32_t now = progress.load();; now = progress.load()) {
    if ((now & kStop) != 0 || interrupt_.raised()) throw Error(kAborted, "aborted");
    if (now >= count) return;
    progress.wait(now);
  }
}

// Waits in poll(2) on the sockets instead of on the counter, so that the death of a peer is noticed
// while there is nothing to send.
void HostExecutor::await_compute(uint32_t count, const std::vector<int>& peers) {
  const Progress& progress = finished_[int(Queue::kCompute)];
  interrupt_.check();
  while (progress.load() < count) {
    comm_sleeps_for_ = count;
    if (progress.load() < count) communicator_.sleep(peers);
    comm_sleeps_for_ = kNever;
  }
}

}  // namespace

void RunTimes::reset(size_t num_ops) {
  for (std::vector<double>* times : {&start, &end, &ready, &cpu}) times->assign(num_ops, 0);
}

std::unique_ptr<Executor> make_host_executor(const ExecutorContext& context, const Backend* backend) {
  return std::make_unique<HostExecutor>(context, backend);
}

}  // namespace scmoe
