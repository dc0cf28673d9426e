// engine_test [part of a name]: runs the C++ tests of this folder in one process. A build with
// -DSCMOE_SANITIZE=thread or address,undefined finds data races and memory errors of the engine.
#include <cstdio>

#include "check.h"

namespace scmoe::test {

std::vector<Test>& tests() {
  static std::vector<Test> list;
  return list;
}

}  // namespace scmoe::test

int main(int argc, char** argv) {
  int failed = 0, run = 0;
  for (const auto& test : scmoe::test::tests()) {
    if (argc > 1 && test.name.find(argv[1]) == std::string::npos) continue;
    ++run;
    try {
      test.run();
      std::printf("ok      %s\n", test.name.c_str());
    } catch (const std::exception& error) {
      ++failed;
      std::printf("FAILED  %s\n        %s\n", test.name.c_str(), error.what());
    }
    std::fflush(stdout);
  }
  std::printf("%d tests, %d failed\n", run, failed);
  return failed == 0 && run > 0 ? 0 : 1;
}
