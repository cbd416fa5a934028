// From a conversation to the tokens that the model sees.
#pragma once

#include "answer/loaded_model.h"
#include "answer/picture.h"
#include "base/json.h"
#include "base/result.h"
#include "engine/session.h"

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace pinhole {

struct ChatTurn {
  std::string role; // "system", "user", "assistant", "tool"
  std::string text;
  std::vector<size_t> pictures; // indexes into the conversation's pictures
  // The byte of the text before which each of them stands, in ascending order; empty: before it
  // all.
  std::vector<size_t> picture_places = {};

  // What only templates that know tools read. Of an assistant: its calls, a list of {type, id,
  // function: {name, arguments}}, with the arguments as an object. Of "tool": whose result it is.
  Json tool_calls = nullptr;
  std::string tool_name = {}, tool_call_id = {};
  // Of the first turn: the tools of the conversation, a list of {type, function}.
  Json tools = nullptr;
};

struct Prompt {
  std::vector<PromptToken> tokens;
  int32_t next_position = 0; // of the first generated token
  int64_t picture_tokens = 0;
  bool is_cross = false; // pictures are one token each, without rows of features
};

// Whether the chat template writes the tools of a conversation.
bool template_knows_tools(const LoadedModel& loaded);

// Renders the chat template. Words of a user that spell a control token stay ordinary text: an
// invisible mark (U+FDD0) splits them, and encode_prompt() drops the mark.
Result<std::string> render_chat(const LoadedModel& loaded, std::span<const ChatTurn> turns);

// Token ids of rendered text; each picture's mark, or image token, becomes as many image
// tokens as its picture has features. Models with a token between rows read how long these are from
// `row_tokens`.
Result<std::vector<TokenId>> encode_prompt(const LoadedModel& loaded, std::string_view text,
                                           std::span<const int64_t> picture_tokens,
                                           std::span<const int64_t> row_tokens = {});

// Positions and, where image tokens stand, rows of picture features: picture i's features begin at
// first_rows[i]. Grids must match the image tokens' runs; of a picture in pieces each has one.
Result<Prompt> place_pictures(const LoadedModel& loaded, std::span<const TokenId> ids,
                              std::span<const PatchGrid> grids);

// Fills feature rows once the pictures are encoded, in the order of their image tokens.
struct PlacedPicture {
  int32_t first_row = 0;
  Sha256Digest digest{};
};
void bind_pictures(Prompt& prompt, TokenId image_token_id, std::span<const PatchGrid> grids,
                   std::span<const PlacedPicture> pictures);

// A conversation's prompt before its pictures are encoded, and what they are.
struct PreparedPrompt {
  Prompt prompt;
  struct Piece { // of a picture; most have one
    size_t picture = 0;
    int64_t piece = 0;
  };
  std::vector<Piece> pieces;    // in the order of their image tokens
  std::vector<PatchGrid> grids; // of each

  // Once they are encoded.
  void bind(const LoadedModel& loaded, std::span<const PlacedPicture> placed) {
    bind_pictures(prompt, loaded.image_token_id, grids, placed);
  }
};
Result<PreparedPrompt> prepare_prompt(const LoadedModel& loaded, std::span<const ChatTurn> turns,
                                      std::span<const Picture> pictures);

// Tokens of a conversation's prompt, without decoding any picture.
Result<std::vector<TokenId>> count_prompt(const LoadedModel& loaded,
                                          std::span<const ChatTurn> turns,
                                          std::span<const Picture> pictures);

} // namespace pinhole
