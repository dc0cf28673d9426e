// Named tests, and checks that say where they failed.
#pragma once

#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

namespace scmoe::test {

struct Test {
  std::string name;
  std::function<void()> run;
};

std::vector<Test>& tests();

struct Register {
  Register(const char* name, std::function<void()> run) { tests().push_back({name, std::move(run)}); }
};

inline void check(bool holds, const std::string& what) {
  if (!holds) throw std::runtime_error(what);
}

// The share of its work that a test does. A build with sanitizers takes ten times as long, so it
// does less; a build that looks for data races does least, because work on one thread has none.
constexpr int share_of(int work) {
#if defined(__SANITIZE_THREAD__)
  return work / 50;
#elif defined(__SANITIZE_ADDRESS__)
  return work / 5;
#else
  return work;
#endif
}

}  // namespace scmoe::test

#define SCMOE_JOIN2(a, b) a##b
#define SCMOE_JOIN(a, b) SCMOE_JOIN2(a, b)
// TEST("a sentence that says what is true") { ... }
#define TEST(sentence)                                                                                         \
  static void SCMOE_JOIN(test_, __LINE__)();                                                                   \
  static const ::scmoe::test::Register SCMOE_JOIN(register_, __LINE__)(sentence, SCMOE_JOIN(test_, __LINE__)); \
  static void SCMOE_JOIN(test_, __LINE__)()
