// Any text as a model's configuration: parse and typed look-ups end in a value or an error.
#include "file/hf_reader.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace pinhole;
  const auto config = parse_config({reinterpret_cast<const char*>(data), size}, "config.json");
  if (!config)
    return 0;
  const auto look_up = [](const Json& object) {
    for (const char* key : {"hidden_size", "rope_theta", "model_type", "tie_word_embeddings"}) {
      (void)json_int(object, key, "config.json");
      (void)json_double(object, key, "config.json");
      (void)json_string(object, key, "config.json");
      (void)json_int_or(object, key, 1, "config.json");
      (void)json_double_or(object, key, 1.0, "config.json");
      (void)json_bool_or(object, key, true, "config.json");
    }
  };
  look_up(*config);
  for (const auto& [key, value] : config->items()) {
    (void)json_int(*config, key, "config.json");
    look_up(value);
  }
  return 0;
}
