// Any bytes as a .npy array: an error, or a view that has as many elements as the shape.
#include "file/npy.h"

#include <cstdlib>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace pinhole;
  const std::span<const std::byte> bytes(reinterpret_cast<const std::byte*>(data), size);
  const auto array = NpyArray::parse(bytes, "fuzz.npy");
  if (!array)
    return 0;
  int64_t elements = 1;
  for (const int64_t dim : array->shape)
    elements *= dim; // checked by parse when none is 0
  if (elements != array->elements())
    std::abort();
  volatile double sum = 0;
  if (const auto values = array->floats()) {
    for (const float value : *values)
      sum = sum + static_cast<double>(value);
  }
  if (const auto values = array->ints())
    sum = sum + static_cast<double>(values->size());
  if (const auto values = array->bytes()) {
    for (const uint8_t value : *values)
      sum = sum + value;
  }
  return 0;
}
