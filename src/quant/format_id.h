// FormatId alone, without std headers: what kernel translation units may include.
#pragma once

#include <stdint.h>

namespace pinhole {

enum class FormatId : uint8_t {
#define PINHOLE_FORMAT(id, name, gguf_type, block_elements, block_bytes, header) id,
#include "quant/formats.def"
#undef PINHOLE_FORMAT
};

inline constexpr int kNumFormats = 0
#define PINHOLE_FORMAT(id, name, gguf_type, block_elements, block_bytes, header) +1
#include "quant/formats.def"
#undef PINHOLE_FORMAT
    ;

} // namespace pinhole
