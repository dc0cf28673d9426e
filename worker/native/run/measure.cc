#include "run/measure.h"

#include <algorithm>
#include <bit>
#include <cstdio>
#include <future>
#include <set>

#include "run/emulated_link.h"

namespace scmoe::run {
namespace {

using nlohmann::json;

const std::set<std::string> kMoeParts = {"gate", "counts", "encode", "experts", "decode", "current", "wgrad"};
const std::set<std::string> kTransfers = {"dispatch", "combine"};

// Waits for a call of the engine and throws the error that it ended with.
class Call {
 public:
  Engine::Done done() {
    return [promise = promise_](const Error* error) {
      if (error == nullptr) {
        promise->set_value();
      } else {
        promise->set_exception(std::make_exception_ptr(*error));
      }
    };
  }
  void wait() { promise_->get_future().get(); }

 private:
  std::shared_ptr<std::promise<void>> promise_ = std::make_shared<std::promise<void>>();
};

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::nth_element(values.begin(), values.begin() + int64_t(values.size() / 2), values.end());
  return values[values.size() / 2];
}

// Rounds a finite number to the nearest bf16, ties to even.
uint16_t bf16_of(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

double first_of(const BufferView& view) {
  const char* const data = view.arena->data() + view.offset;
  if (view.dtype != DType::kBF16) return *reinterpret_cast<const float*>(data);
  return std::bit_cast<float>(uint32_t{*reinterpret_cast<const uint16_t*>(data)} << 16);
}

struct OpTimes {
  std::string label;
  std::vector<double> start, ready, end;  // by step
};

class Session {
 public:
  Session(const File& file, const Options& options);
  void step(bool measured);
  // Waits until all ranks have done their last step. A rank that ended earlier would be reported as
  // lost by the others.
  void await_others();
  json result() const;
  // The sum of the median times, in microseconds, of the ops of these parts, and their number.
  std::pair<double, int> time_of(const std::set<std::string>& parts) const;

 private:
  void connect(const Options& options);
  void fill();

  const File& file_;
  Engine engine_;
  std::map<std::string, std::vector<OpTimes>> times_;  // by program
  std::vector<double> milliseconds_;
  std::map<std::string, std::vector<double>> reported_;
};

EngineOptions engine_options(const File& file, const Options& options) {
  EngineOptions engine;
  engine.topology = file.topology;
  engine.compute_threads = options.threads;
  engine.timeout = options.timeout;
  return engine;
}

Session::Session(const File& file, const Options& options)
    : file_(file), engine_(engine_options(file, options), executor_for(options.hardware)) {
  std::fprintf(stderr, "%s: %s; %.1f MiB needed, %.1f MiB free\n", file.title.c_str(), engine_.description().c_str(),
               double(file.bytes) / 0x1p20, double(engine_.available_memory()) / 0x1p20);
  connect(options);
  for (const std::string& text : file.programs) {
    const json program = json::parse(text);
    engine_.load(text);
    for (const json& op : program.at("ops")) times_[program.at("name")].push_back({op.at("label"), {}, {}, {}});
  }
  fill();
}

void Session::connect(const Options& options) {
  const auto [rank, world_size, expert_parallel_size] = file_.topology;
  if (world_size == 1) return;
  if (int(options.peers.size()) != world_size) {
    throw std::invalid_argument("--peers names " + std::to_string(options.peers.size()) +
                                " ranks, but the file is for worldSize " + std::to_string(world_size) +
                                "; name every rank's HOST:PORT, separated by commas");
  }
  engine_.listen(options.peers[size_t(rank)].port);
  Call call;
  engine_.connect(options.peers, {}, call.done());
  call.wait();
}

// The values do not depend on the type of the buffer, except for rounding.
void Session::fill() {
  std::vector<std::string> written;
  for (const Fill& fill : file_.fills) {
    const BufferView view = engine_.view(fill.buffer);
    char* const data = view.arena->data() + view.offset;
    for (int64_t i = 0; i < view.elements; ++i) {
      const double value = value_at(fill, i);
      if (view.dtype == DType::kI32) {
        reinterpret_cast<int32_t*>(data)[i] = int32_t(value);
      } else if (view.dtype == DType::kBF16) {
        reinterpret_cast<uint16_t*>(data)[i] = bf16_of(float(value));
      } else {
        reinterpret_cast<float*>(data)[i] = float(value);
      }
    }
    written.push_back(fill.buffer);
  }
  engine_.upload(written);
}

void Session::step(bool measured) {
  const auto begun = Clock::now();
  for (const std::string& name : file_.step) {
    Call call;
    engine_.run(name, call.done());
    call.wait();
    if (!measured) continue;
    std::vector<OpTimes>& ops = times_.at(name);
    for (size_t i = 0; i < ops.size(); ++i) {
      ops[i].start.push_back(engine_.times().start[i]);
      ops[i].ready.push_back(engine_.times().ready[i]);
      ops[i].end.push_back(engine_.times().end[i]);
    }
  }
  if (measured) milliseconds_.push_back(std::chrono::duration<double, std::milli>(Clock::now() - begun).count());
  engine_.download(file_.report);
  for (const std::string& name : file_.report) {
    const BufferView view = engine_.view(name);
    reported_[name].push_back(first_of(view));
  }
}

void Session::await_others() {
  if (file_.topology.world_size == 1) return;
  Call call;
  engine_.all_reduce(std::make_shared<std::vector<double>>(1), call.done());
  call.wait();
}

std::pair<double, int> Session::time_of(const std::set<std::string>& parts) const {
  double total = 0;
  int count = 0;
  for (const std::string& name : file_.step) {
    for (const OpTimes& op : times_.at(name)) {
      const auto part = file_.parts.find(op.label);
      if (part == file_.parts.end() || parts.count(part->second) == 0) continue;
      total += median(op.end) - median(op.ready);
      ++count;
    }
  }
  return {total, count};
}

json Session::result() const {
  const double milliseconds = median(milliseconds_);
  json ops = json::array();
  for (const std::string& name : file_.step) {
    for (const OpTimes& op : times_.at(name)) {
      ops.push_back({{"program", name},
                     {"label", op.label},
                     {"start", median(op.start)},
                     {"ready", median(op.ready)},
                     {"end", median(op.end)}});
    }
  }
  const auto [moe, moe_ops] = time_of(kMoeParts);
  const auto [transfer, transfers] = time_of(kTransfers);
  return {{"title", file_.title},
          {"engine", engine_.description()},
          {"rank", file_.topology.rank},
          {"worldSize", file_.topology.world_size},
          {"bytes", file_.bytes},
          {"steps", milliseconds_.size()},
          {"milliseconds", milliseconds},
          {"fastestMilliseconds",
           milliseconds_.empty() ? 0 : *std::min_element(milliseconds_.begin(), milliseconds_.end())},
          {"tokensPerSecond", milliseconds > 0 ? 1e3 * file_.tokens / milliseconds : 0},
          {"teraflopsPerSecond", milliseconds > 0 ? 1e-9 * file_.flops / milliseconds : 0},
          {"moeMicroseconds", moe},
          {"transferMicroseconds", transfer},
          {"transfers", transfers},
          {"reported", reported_},
          {"ops", ops}};
}

json run_steps(const File& file, const Options& options) {
  Session session(file, options);
  for (int step = 0; step < options.warm_up + options.steps; ++step) {
    if (step == options.warm_up) std::fprintf(stderr, "warm-up done\n");
    session.step(step >= options.warm_up);
  }
  session.await_others();
  return session.result();
}

}  // namespace

json measure(const File& file, Options options) {
  if (options.transfer_share < 0) return run_steps(file, options);
  // The time that the layers take without transfers determines how long their transfers have to be.
  const json free = run_steps(file, options);
  const double share = options.transfer_share, count = free.at("transfers");
  const double moe = free.at("moeMicroseconds");
  const double each = count > 0 ? share / (1 - share) * moe / count : 0;
  MakeCollectives& make = options.hardware.device.make_collectives;
  if (each > 0) make = over_emulated_link(std::move(make), each);
  json result = run_steps(file, options);
  result["transferShare"] = share;
  result["emulatedTransferMicroseconds"] = each;
  result["freeMilliseconds"] = free.at("milliseconds");
  result["freeMoeMicroseconds"] = moe;
  return result;
}

}  // namespace scmoe::run
