// Runs a test for every kernel table that this machine has; data for them.
#pragma once

#include "kernels/select.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

namespace pinhole::kernels {

inline std::vector<std::string> isa_names() {
  std::vector<std::string> names;
  for (std::string_view name : available())
    names.emplace_back(name);
  return names;
}

class EachIsa : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    Result<const Table*> table = find(GetParam());
    ASSERT_TRUE(table) << table.error().text();
    table_ = *table;
  }
  const Table& table() const { return *table_; }

 private:
  const Table* table_ = nullptr;
};

#define PINHOLE_FOR_EACH_ISA(suite)                                                                \
  INSTANTIATE_TEST_SUITE_P(Isa, suite, testing::ValuesIn(isa_names()),                             \
                           [](const auto& info) { return info.param; })

inline const int64_t kOddSizes[] = {1,  2,  3,  7,  8,  12,  15,  16,  17,  31,   32,
                                    33, 36, 63, 64, 65, 100, 127, 257, 576, 1000, 4099};

inline std::vector<float> normal_values(int64_t n, uint32_t seed, float scale = 1.0f,
                                        float shift = 0.0f) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(shift, scale);
  std::vector<float> values(static_cast<size_t>(n));
  for (float& v : values)
    v = normal(random);
  return values;
}

// |actual - expected| <= relative * |expected| + absolute, element by element.
inline void expect_close(const std::vector<float>& actual, const std::vector<double>& expected,
                         double relative, double absolute) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); ++i) {
    double limit = relative * std::abs(expected[i]) + absolute;
    ASSERT_LE(std::abs(static_cast<double>(actual[i]) - expected[i]), limit)
        << "element " << i << ": " << actual[i] << ", expected " << expected[i];
  }
}

} // namespace pinhole::kernels
