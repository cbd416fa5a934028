// tokenizer.json and tokenizer_config.json from strangers: loading gives a tokenizer or an error,
// and a tokenizer encodes and decodes any text.
//
// Input: tokenizer.json, then optionally a zero byte and tokenizer_config.json, then optionally a
// zero byte and the text to encode.
#include "text/tokenizer.h"

#include <cstdint>
#include <cstdlib>

using namespace pinhole;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t first = std::min(input.find('\0'), input.size());
  const std::string_view rest = input.substr(std::min(first + 1, input.size()));
  const size_t second = std::min(rest.find('\0'), rest.size());
  Json config;
  if (auto parsed = parse_json(rest.substr(0, second), "config"))
    config = std::move(*parsed);
  const auto tokenizer = Tokenizer::from_json(input.substr(0, first), config, "fuzz");
  if (!tokenizer) {
    if (tokenizer.error().message.empty())
      std::abort();
    return 0;
  }
  std::string text(rest.substr(std::min(second + 1, rest.size())));
  text += " the <s> \xFF\xE2\x96\x81 ab12\n\n'll\xCC\x81\xE4\xB8\x80";
  for (const bool special : {false, true}) {
    const std::vector<TokenId> ids = tokenizer->encode(text, special, special);
    StreamDecoder decoder(*tokenizer);
    std::string streamed;
    for (const TokenId id : ids) {
      if (id < 0 || id >= tokenizer->vocab_size())
        std::abort();
      streamed += decoder.push(id);
    }
    streamed += decoder.finish();
    (void)tokenizer->decode(ids, special);
  }
  (void)tokenizer->piece(-1);
  (void)tokenizer->piece(static_cast<TokenId>(tokenizer->vocab_size()));
  return 0;
}
