// Tokenizer metadata of a GGUF from strangers: from_gguf gives a tokenizer or an error, and a
// tokenizer encodes and decodes any text.
//
// Input: one byte of settings, then lines; "m left right" is a merge, "t N text" a token of type N
// whose score is its number, the rest is the text to encode.
#include "text/tokenizer.h"

#include <cstdint>
#include <cstdlib>

using namespace pinhole;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0)
    return 0;
  const uint8_t settings = data[0];
  std::string_view input(reinterpret_cast<const char*>(data) + 1, size - 1);
  GgufTokenizerSpec spec;
  const bool spm = (settings & 1) != 0;
  spec.model = spm ? "llama" : "gpt2";
  spec.pre = (settings & 2) != 0 ? "qwen2" : (settings & 4) != 0 ? "llama-bpe" : "default";
  if ((settings & 8) != 0)
    spec.add_space_prefix = false;
  if ((settings & 16) != 0)
    spec.bos = settings >> 5;
  std::string text;
  while (!input.empty()) {
    const size_t end = std::min(input.find('\n'), input.size());
    const std::string_view line = input.substr(0, end);
    input.remove_prefix(std::min(end + 1, input.size()));
    if (line.starts_with("m ")) {
      spec.merges.push_back(line.substr(2));
    } else if (line.starts_with("t ") && line.size() > 4) {
      spec.token_types.push_back(line[2] - '0');
      spec.scores.push_back(static_cast<float>(spec.tokens.size()) / -2);
      spec.tokens.push_back(line.substr(4));
    } else {
      text.append(line).append("\n");
    }
  }
  const auto tokenizer = Tokenizer::from_gguf(spec, "fuzz");
  if (!tokenizer) {
    if (tokenizer.error().message.empty())
      std::abort();
    return 0;
  }
  for (const bool special : {false, true}) {
    const std::vector<TokenId> ids = tokenizer->encode(text, special, special);
    StreamDecoder decoder(*tokenizer);
    for (const TokenId id : ids) {
      if (id < 0 || id >= tokenizer->vocab_size())
        std::abort();
      (void)decoder.push(id);
    }
    (void)decoder.finish();
    (void)tokenizer->decode(ids, special);
  }
  return 0;
}
