// JPEG files, as they come.
#include "picture_fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  pinhole::fuzz_picture(std::as_bytes(std::span(data, size)));
  return 0;
}
