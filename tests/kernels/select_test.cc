// Which table runs: PINHOLE_ISA forces one, a name that cannot be honoured is an error that says
// why.
#include "kernels/cpu.h"
#include "kernels/select.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>

namespace pinhole::kernels {
namespace {

// Sets PINHOLE_ISA for one test.
class Forced {
 public:
  explicit Forced(const char* value) {
    if (const char* before = std::getenv("PINHOLE_ISA"))
      before_ = before;
    set(value);
  }
  ~Forced() { set(before_.empty() ? nullptr : before_.c_str()); }
  Forced(const Forced&) = delete;
  Forced& operator=(const Forced&) = delete;

 private:
  static void set(const char* value) {
    if (value == nullptr) {
      unsetenv("PINHOLE_ISA");
    } else {
      setenv("PINHOLE_ISA", value, 1);
    }
  }
  std::string before_;
};

TEST(Select, ScalarIsAlwaysThere) {
  ASSERT_FALSE(available().empty());
  EXPECT_EQ(available().front(), "scalar");
}

TEST(Select, TakesTheBest) {
  Forced none(nullptr);
  Result<const Table*> table = select();
  ASSERT_TRUE(table);
  EXPECT_EQ((*table)->isa, available().back());
}

TEST(Select, EnvironmentForcesEachAvailable) {
  for (std::string_view name : available()) {
    Forced forced(std::string(name).c_str());
    Result<const Table*> table = select();
    ASSERT_TRUE(table) << table.error().text();
    EXPECT_EQ((*table)->isa, name);
  }
}

TEST(Select, EmptyEnvironmentIsNotAName) {
  Forced forced("");
  Result<const Table*> table = select();
  ASSERT_TRUE(table);
  EXPECT_EQ((*table)->isa, available().back());
}

TEST(Select, NonsenseNamesTheChoices) {
  for (const char* name : {"sse9", "AVX2", "avx2 ", "scalarx"}) {
    Forced forced(name);
    Result<const Table*> table = select();
    ASSERT_FALSE(table) << name;
    std::string text = table.error().text();
    EXPECT_THAT(text, testing::HasSubstr("PINHOLE_ISA"));
    EXPECT_THAT(text, testing::HasSubstr(name));
    EXPECT_THAT(text, testing::HasSubstr("available: scalar"));
  }
}

// The other architecture's kernels have a name here, and a reason why they cannot run.
TEST(Select, SaysWhyAKnownNameCannotRun) {
#if defined(__x86_64__)
  Result<const Table*> table = find("neon");
#else
  Result<const Table*> table = find("avx2");
#endif
  ASSERT_FALSE(table);
  EXPECT_EQ(table.error().code, ErrorCode::kUnsupported);
  EXPECT_THAT(table.error().text(), testing::HasSubstr("does not contain"));
}

#if defined(__x86_64__)
// Linux lists a flag only when it saves the registers: it and cpu_features() must agree.
TEST(Select, AgreesWithProcCpuinfo) {
  std::ifstream in("/proc/cpuinfo");
  std::string text(std::istreambuf_iterator<char>(in), {});
  if (text.find("flags") == std::string::npos)
    GTEST_SKIP() << "no flags in /proc/cpuinfo";
  size_t begin = text.find("flags");
  std::string flags = text.substr(begin, text.find('\n', begin) - begin) + " ";
  auto has = [&](const char* flag) {
    return flags.find(" " + std::string(flag) + " ") != std::string::npos;
  };
  // Some kernels leave LZCNT ("abm") out of the list.
  const bool lzcnt = has("abm") || __builtin_cpu_supports("lzcnt");
  EXPECT_EQ((cpu_features() & kCpuHaswell) != 0, has("avx2") && has("fma") && has("f16c") &&
                                                     has("bmi1") && has("bmi2") && lzcnt &&
                                                     has("movbe"));
  EXPECT_EQ((cpu_features() & kCpuAvx512Bf16) != 0,
            has("avx512_bf16") && has("avx512_vnni") && has("avx512vl") && has("avx512_vbmi2"));
  if (!has("amx_bf16")) {
    EXPECT_EQ(cpu_features() & kCpuAmx, 0u);
  }
}
#endif

} // namespace
} // namespace pinhole::kernels
