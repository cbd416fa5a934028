// .npy arrays: the types of the golden cases, and damaged files.
#include "file/npy.h"
#include "support/golden.h"
#include "support/temp_dir.h"

#include <cstring>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace pinhole {
namespace {

using namespace pinhole::testing;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// As numpy.lib.format describes it: the data begins at a multiple of 64.
std::string npy(const std::string& dict, const std::string& data, int major = 1) {
  const size_t prefix = major == 1 ? 10 : 12;
  std::string header = dict;
  header.resize((prefix + dict.size() + 1 + 63) / 64 * 64 - prefix - 1, ' ');
  header += '\n';
  std::string out = std::string("\x93NUMPY", 6) + static_cast<char>(major) + '\0';
  for (int i = 0; i < (major == 1 ? 2 : 4); ++i)
    out += static_cast<char>(header.size() >> (8 * i));
  return out + header + data;
}

std::string dict(const char* descr, const char* shape, const char* fortran = "False") {
  return std::string("{'descr': '") + descr + "', 'fortran_order': " + fortran +
         ", 'shape': " + shape + ", }";
}

template <class T> std::string raw(const std::vector<T>& values) {
  std::string out(values.size() * sizeof(T), '\0');
  std::memcpy(out.data(), values.data(), out.size());
  return out;
}

TEST(Npy, ReadsEachType) {
  const TempDir dir;
  const auto floats =
      NpyArray::open(dir.write("f", npy(dict("<f4", "(2, 3)"), raw<float>({0, 1, 2, 3, 4, 5.5f}))));
  ASSERT_TRUE(floats) << floats.error().text();
  EXPECT_THAT(floats->shape, ElementsAre(2, 3));
  EXPECT_EQ(floats->elements(), 6);
  EXPECT_THAT(floats->floats().value(), ElementsAre(0, 1, 2, 3, 4, 5.5f));
  const auto ints =
      NpyArray::open(dir.write("i", npy(dict("<i4", "(3,)"), raw<int32_t>({-1, 0, INT32_MAX}))));
  EXPECT_THAT(ints.value().ints().value(), ElementsAre(-1, 0, INT32_MAX));
  const auto longs =
      NpyArray::open(dir.write("l", npy(dict("<i8", "(2,)"), raw<int64_t>({INT64_MIN, 7}), 2)));
  EXPECT_THAT(longs.value().ints().value(), ElementsAre(INT64_MIN, 7));
  const auto bytes = NpyArray::open(dir.write("u", npy(dict("|u1", "(2, 1)"), "\xff\x01")));
  EXPECT_THAT(bytes.value().bytes().value(), ElementsAre(255, 1));
  const auto bools =
      NpyArray::open(dir.write("b", npy(dict("|b1", "(2,)"), std::string("\0\1", 2), 3)));
  EXPECT_THAT(bools.value().bytes().value(), ElementsAre(0, 1));
  const auto scalar = NpyArray::open(dir.write("s", npy(dict("<f4", "()"), raw<float>({2.5f}))));
  EXPECT_EQ(scalar.value().elements(), 1);
  const auto none = NpyArray::open(dir.write("n", npy(dict("<f4", "(0, 5)"), "")));
  EXPECT_TRUE(none.value().floats().value().empty());
}

TEST(Npy, AnotherTypeIsAnErrorThatNamesBoth) {
  const std::string file = npy(dict("<i4", "(1,)"), raw<int32_t>({1}));
  const auto array = NpyArray::parse(as_bytes(file), "x.npy");
  ASSERT_TRUE(array) << array.error().text();
  EXPECT_THAT(array->floats().error().text(), HasSubstr("<i4"));
  EXPECT_THAT(array->floats().error().text(), HasSubstr("<f4"));
  EXPECT_FALSE(array->bytes());
}

struct Damage {
  const char* name;
  std::string bytes;
  const char* reason;
};
void PrintTo(const Damage& damage, std::ostream* out) { *out << damage.name; }
class NpyDamage : public ::testing::TestWithParam<Damage> {};

TEST_P(NpyDamage, IsRefused) {
  const auto array = NpyArray::parse(as_bytes(GetParam().bytes), "x.npy");
  ASSERT_FALSE(array);
  EXPECT_THAT(array.error().text(), HasSubstr("x.npy"));
  EXPECT_THAT(array.error().text(), HasSubstr(GetParam().reason));
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, NpyDamage,
    ::testing::Values(
        Damage{"Magic", "PK\3\4 zip archive", "not a .npy"},
        Damage{"Version", npy(dict("<f4", "(1,)"), "abcd", 9), "version 9"},
        Damage{"Fortran", npy(dict("<f4", "(1, 1)", "True"), "abcd"), "Fortran"},
        Damage{"BigEndian", npy(dict(">f4", "(1,)"), "abcd"), ">f4"},
        Damage{"Double", npy(dict("<f8", "(1,)"), "abcdefgh"), "<f8"},
        Damage{"TooShort", npy(dict("<f4", "(2,)"), "abcd"), "expected 8"},
        Damage{"TooLong", npy(dict("<f4", "(1,)"), "abcdef"), "6 bytes"},
        Damage{"Huge", npy(dict("<f4", "(4294967296, 4294967296)"), "abcd"), "4294967296"},
        Damage{"Huger", npy(dict("<f4", "(99999999999999999999,)"), "abcd"), "64-bit"},
        Damage{"Negative", npy(dict("<f4", "(-1,)"), "abcd"), "header"},
        Damage{"NoShape", npy("{'descr': '<f4', 'fortran_order': False}", "abcd"), "shape"},
        Damage{"Unclosed", npy("{'descr': '<f4", "abcd"), "quote"},
        Damage{"OtherKey", npy("{'evil': 1}", "abcd"), "keys"},
        Damage{"Trailing", npy(dict("<f4", "(1,)") + "x", "abcd"), "end of the header"}),
    [](const auto& info) { return info.param.name; });

TEST(Npy, EveryShorterPrefixIsAnError) {
  const std::string whole = npy(dict("<f4", "(2, 2)"), raw<float>({1, 2, 3, 4}));
  for (size_t length = 0; length < whole.size(); ++length) {
    const std::vector<char> prefix(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(length));
    ASSERT_FALSE(NpyArray::parse(as_bytes({prefix.data(), prefix.size()}), "cut.npy")) << length;
  }
}

TEST(Npy, GoldenCase) {
  REQUIRE_GOLDEN();
  const std::string dir = std::string(PINHOLE_GOLDEN_DIR) + "/qwen3_vl/tiny/cases/one_image/";
  const auto logits = NpyArray::open(dir + "logits.npy");
  ASSERT_TRUE(logits) << logits.error().text();
  EXPECT_THAT(logits->shape,
              ElementsAre(46, 512)); // n_tokens of fixture.json, vocab_size of config
  const auto grid = NpyArray::open(dir + "image_grid_thw.npy");
  ASSERT_TRUE(grid) << grid.error().text();
  EXPECT_THAT(grid->shape, ElementsAre(1, 3));
  EXPECT_EQ(grid->ints().value()[0], 1);
}

} // namespace
} // namespace pinhole
