// The little a test program needs: named tests, checks that say where they failed.
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

}  // namespace scmoe::test

#define SCMOE_JOIN2(a, b) a##b
#define SCMOE_JOIN(a, b) SCMOE_JOIN2(a, b)
// TEST("a sentence that says what is true") { ... }
#define TEST(sentence)                                                                                         \
  static void SCMOE_JOIN(test_, __LINE__)();                                                                   \
  static const ::scmoe::test::Register SCMOE_JOIN(register_, __LINE__)(sentence, SCMOE_JOIN(test_, __LINE__)); \
  static void SCMOE_JOIN(test_, __LINE__)()
