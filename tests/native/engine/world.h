// Ranks of one world in one process, connected over loopback, and programs for them.
#pragma once

#include <future>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "check.h"
#include "engine/engine.h"

namespace scmoe::test {

// The end of a call of the engine.
class Outcome {
 public:
  Engine::Done done() {
    return [promise = promise_](const Error* error) {
      promise->set_value(error == nullptr ? std::nullopt : std::optional<Error>(*error));
    };
  }
  // Waits for the end; nullopt stands for success. Fails the test if the call does not end.
  std::optional<Error> wait() {
    auto future = promise_->get_future();
    check(future.wait_for(std::chrono::seconds(60)) == std::future_status::ready, "the call did not end");
    return future.get();
  }
  void expect_success() {
    if (const auto error = wait()) throw std::runtime_error(std::string(error->code) + ": " + error->what());
  }

 private:
  std::shared_ptr<std::promise<std::optional<Error>>> promise_ = std::make_shared<std::promise<std::optional<Error>>>();
};

class World {
 public:
  World(int world_size, int expert_parallel_size, int timeout_ms = 20'000);
  void connect();
  // Connects all ranks, where rank 1 and above dial rank 0 at the port that `dialled` returns.
  void connect(const std::function<int(int port)>& dialled);
  Engine& operator[](int rank) { return *engines_[rank]; }
  int size() const { return int(engines_.size()); }
  // Loads one program per rank.
  void load(const std::function<nlohmann::json(int rank)>& program);
  void run(const std::string& name);

 private:
  std::vector<std::unique_ptr<Engine>> engines_;
};

// A buffer of a program under construction.
struct BufferSpec {
  std::string name;
  int64_t elements;
  std::string dtype = "f32";
};

// An op that names buffers and waits by their position.
struct OpSpec {
  std::string op, label;
  std::vector<int> inputs, outputs;
  nlohmann::json attrs = nlohmann::json::object();
  std::vector<int> waits = {};
};

// A program whose buffers are all persistent, one after another.
nlohmann::json make_program(const std::string& name, const Topology& topology, const std::vector<BufferSpec>& buffers,
                            const std::vector<test::OpSpec>& ops);

template <typename T = float>
T* data(Engine& engine, const std::string& buffer) {
  const BufferView view = engine.view(buffer);
  return reinterpret_cast<T*>(view.arena->data() + view.offset);
}

}  // namespace scmoe::test
