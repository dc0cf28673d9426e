// Streams, events and graphs of a device that is made of host threads, for tests without a GPU.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace scmoe::standin {

using Work = std::function<void()>;

struct ThreadEvent;
struct ThreadStream;

// The calls of a capture, which a launch repeats in the same order.
struct ThreadGraph {
  std::vector<Work> calls;
  std::vector<ThreadStream*> streams;
};

struct ThreadEvent {
  std::mutex mutex;
  std::condition_variable changed;
  uint64_t recorded = 0, done = 0;
  double microseconds = 0;
  ThreadGraph* capture = nullptr;  // the capture in which the event was last recorded

  void await(uint64_t count);
};

// A thread that does its work in order. Its address is the handle for other libraries.
struct ThreadStream {
  ThreadStream();
  ~ThreadStream();
  void put(Work work);
  void record(ThreadEvent* event);
  void wait(ThreadEvent* event);
  void begin_capture() { capture = new ThreadGraph{{}, {this}}; }
  ThreadGraph* end_capture();

  ThreadGraph* capture = nullptr;

 private:
  void join_capture(ThreadGraph* graph);
  void loop();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Work> work_;
  bool ending_ = false;
  std::thread thread_;
};

}  // namespace scmoe::standin
