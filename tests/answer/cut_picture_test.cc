// Pictures of models that bound their sides, cut them into squares or lay them on tiles: sizes as
// transformers' image processors choose them, bounds in tokens, and where the pixels of a piece
// come from.
#include "answer/answerer.h"
#include "kernels/select.h"
#include "support/golden.h"

#include <gmock/gmock.h>

namespace pinhole {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::take;

PictureSpec bounded(int64_t longest, int64_t patch, int64_t merge) {
  PictureSpec spec;
  spec.patch_size = patch;
  spec.merge_size = merge;
  spec.longest_px = longest;
  spec.row_break = "[BREAK]";
  return spec;
}

PictureSpec cut(int64_t side, int64_t min_pieces, int64_t max_pieces) {
  PictureSpec spec;
  spec.patch_size = side / 32;
  spec.merge_size = 2;
  spec.square_px = side;
  spec.min_pieces = min_pieces;
  spec.max_pieces = max_pieces;
  return spec;
}

PictureOptions at_most(int64_t tokens) {
  PictureOptions options;
  options.max_tokens = tokens;
  return options;
}

PictureOptions at_least(int64_t tokens) {
  PictureOptions options;
  options.min_tokens = tokens;
  return options;
}

// get_resize_output_image_size of transformers 5.12.1's Pixtral processor.
TEST(BoundedPictures, SizesAreTransformers) {
  const struct {
    int64_t height, width, longest, factor, out_height, out_width;
  } recorded[] = {{1, 1, 1024, 16, 16, 16},           {1, 1, 1540, 28, 28, 28},
                  {1025, 1024, 1024, 16, 1024, 1024}, {1025, 1024, 1540, 28, 1036, 1036},
                  {3000, 2000, 1024, 16, 1024, 688},  {3000, 2000, 1540, 28, 1540, 1036},
                  {2000, 3000, 1024, 16, 688, 1024},  {2000, 3000, 1540, 28, 1036, 1540},
                  {1540, 1539, 1024, 16, 1024, 1024}, {1540, 1539, 1540, 28, 1540, 1540},
                  {1541, 10, 1024, 16, 1024, 16},     {1541, 10, 1540, 28, 1540, 28},
                  {16, 17, 1024, 16, 16, 32},         {16, 17, 1540, 28, 28, 28},
                  {100, 5000, 1024, 16, 32, 1024},    {100, 5000, 1540, 28, 56, 1540},
                  {768, 1024, 1024, 16, 768, 1024},   {768, 1024, 1540, 28, 784, 1036},
                  {640, 480, 1024, 16, 640, 480},     {640, 480, 1540, 28, 644, 504},
                  {333, 1999, 1024, 16, 176, 1024},   {333, 1999, 1540, 28, 280, 1540},
                  {28, 29, 1024, 16, 32, 32},         {28, 29, 1540, 28, 28, 56}};
  for (const auto& row : recorded) {
    const Picture picture =
        take(plan_picture(row.width, row.height, "p", bounded(row.longest, row.factor, 1), {}));
    EXPECT_EQ(picture.target, (Size{row.out_height, row.out_width}))
        << row.height << " x " << row.width;
    const int64_t rows = row.out_height / row.factor;
    EXPECT_EQ(picture.feature_tokens(), rows * (row.out_width / row.factor));
    EXPECT_EQ(picture.tokens, picture.feature_tokens() + rows - 1);
    EXPECT_EQ(picture.pieces, 1);
  }
}

TEST(BoundedPictures, BoundsInTokensHold) {
  const PictureSpec spec = bounded(1540, 14, 2);
  for (const auto& [width, height] :
       {std::pair(640, 480), {100, 3000}, {3000, 100}, {28, 28}, {5000, 4000}}) {
    for (const int64_t bound : {1, 2, 7, 64, 500, 2000}) {
      const Picture picture = take(plan_picture(width, height, "p", spec, at_most(bound)));
      EXPECT_LE(picture.tokens, bound) << width << " x " << height;
    }
    const Picture free = take(plan_picture(width, height, "p", spec, {}));
    EXPECT_EQ(take(plan_picture(width, height, "p", spec, at_most(free.tokens))).target,
              free.target);
    const Picture larger = take(plan_picture(width, height, "p", spec, at_least(50)));
    EXPECT_GE(larger.tokens, 50);
    EXPECT_LE(std::max(larger.target.width, larger.target.height), 1540);
  }
  // Shape is kept: half the side, a quarter of the tokens.
  const Picture half = take(plan_picture(1120, 840, "p", spec, at_most(340)));
  EXPECT_NEAR(static_cast<double>(half.target.width) / static_cast<double>(half.target.height),
              4.0 / 3, 0.1);
  EXPECT_GE(half.tokens, 290);
  EXPECT_THAT(plan_picture(640, 480, "wide.png", spec, at_least(100000)).error().text(),
              AllOf(HasSubstr("--min-image-tokens"), HasSubstr("100000"), HasSubstr("wide.png")));
  EXPECT_EQ(take(plan_picture(100000, 10, "line.png", spec, {})).target, (Size{28, 1540}));
}

// get_optimal_tiled_canvas of transformers 5.12.1's GotOcr2 processor, for squares of 448 px.
TEST(CutPictures, GridsAreTransformers) {
  const struct {
    int64_t height, width, min_pieces, max_pieces, cols, rows;
  } recorded[] = {{1, 1, 1, 12, 1, 1},       {1, 1, 1, 6, 1, 1},       {1, 1, 2, 4, 2, 2},
                  {448, 448, 1, 12, 1, 1},   {448, 448, 1, 6, 1, 1},   {448, 448, 2, 4, 2, 2},
                  {448, 896, 1, 12, 2, 1},   {448, 896, 1, 6, 2, 1},   {448, 896, 2, 4, 2, 1},
                  {896, 448, 1, 12, 1, 2},   {896, 448, 1, 6, 1, 2},   {896, 448, 2, 4, 1, 2},
                  {600, 800, 1, 12, 4, 3},   {600, 800, 1, 6, 3, 2},   {600, 800, 2, 4, 2, 2},
                  {300, 400, 1, 12, 4, 3},   {300, 400, 1, 6, 3, 2},   {300, 400, 2, 4, 2, 2},
                  {768, 1024, 1, 12, 4, 3},  {768, 1024, 1, 6, 3, 2},  {768, 1024, 2, 4, 2, 2},
                  {1080, 1920, 1, 12, 4, 2}, {1080, 1920, 1, 6, 2, 1}, {1080, 1920, 2, 4, 2, 1},
                  {2000, 500, 1, 12, 1, 4},  {2000, 500, 1, 6, 1, 4},  {2000, 500, 2, 4, 1, 4},
                  {4000, 3000, 1, 12, 3, 4}, {4000, 3000, 1, 6, 2, 3}, {4000, 3000, 2, 4, 2, 2},
                  {10, 3000, 1, 12, 12, 1},  {10, 3000, 1, 6, 6, 1},   {10, 3000, 2, 4, 4, 1},
                  {3000, 10, 1, 12, 1, 12},  {3000, 10, 1, 6, 1, 6},   {3000, 10, 2, 4, 1, 4},
                  {447, 449, 1, 12, 1, 1},   {447, 449, 1, 6, 1, 1},   {447, 449, 2, 4, 2, 2},
                  {500, 400, 1, 12, 3, 4},   {500, 400, 1, 6, 2, 3},   {500, 400, 2, 4, 2, 2},
                  {1000, 2500, 1, 12, 5, 2}, {1000, 2500, 1, 6, 3, 1}, {1000, 2500, 2, 4, 3, 1},
                  {633, 633, 1, 12, 1, 1},   {633, 633, 1, 6, 1, 1},   {633, 633, 2, 4, 2, 2},
                  {634, 634, 1, 12, 2, 2},   {634, 634, 1, 6, 2, 2},   {634, 634, 2, 4, 2, 2},
                  {1344, 1344, 1, 12, 3, 3}, {1344, 1344, 1, 6, 2, 2}, {1344, 1344, 2, 4, 2, 2}};
  for (const auto& row : recorded) {
    const PictureSpec spec = cut(448, row.min_pieces, row.max_pieces);
    const Picture picture = take(plan_picture(row.width, row.height, "p", spec, {}));
    EXPECT_EQ(picture.target, (Size{448 * row.rows, 448 * row.cols}))
        << row.height << " x " << row.width << ", " << row.min_pieces << " to " << row.max_pieces;
    const int64_t squares = row.rows * row.cols;
    EXPECT_EQ(picture.pieces, squares == 1 ? 1 : squares + 1);
    EXPECT_EQ(picture.tokens, picture.pieces * 256);
    EXPECT_EQ(picture.grid.patches(), 1024);
  }
}

TEST(CutPictures, BoundsInTokensHold) {
  const PictureSpec spec = cut(448, 1, 12);
  EXPECT_EQ(take(plan_picture(800, 600, "p", spec, at_most(3000))).tokens, 256 * 7);
  EXPECT_EQ(take(plan_picture(800, 600, "p", spec, at_most(600))).tokens, 256);
  EXPECT_EQ(take(plan_picture(448, 448, "p", spec, at_least(257))).tokens, 256 * 5); // 2 x 2
  EXPECT_THAT(plan_picture(800, 600, "p.png", spec, at_most(255)).error().text(),
              AllOf(HasSubstr("256"), HasSubstr("255"), HasSubstr("--max-image-tokens")));
  EXPECT_THAT(plan_picture(800, 600, "p.png", spec, at_least(4000)).error().text(),
              AllOf(HasSubstr("3328"), HasSubstr("4000"), HasSubstr("--min-image-tokens")));
}

// Pieces are the squares of the resized picture, then the whole.
TEST(CutPictures, PiecesAreSquaresOfThePictureRowByRow) {
  const std::string file =
      testing::read_file(testing::source_path("models/pinhole-mini/samples/00_p1.png"));
  const auto bytes = std::span(reinterpret_cast<const std::byte*>(file.data()), file.size());
  const Image original = take(decode_picture(bytes, {}, AlphaPolicy::kDrop, "p"));
  const int64_t side = 48;
  PictureSpec spec = cut(side, 1, 256);
  spec.patch_size = 8;
  Picture picture = take(open_picture(file, "p", spec, {}));
  const Image canvas = resize(original, picture.target, Filter::kBicubic);
  const Image whole = resize(original, {side, side}, Filter::kBicubic);
  const Image stacked = take(decode_for_model(picture, spec, {}));
  const int64_t cols = picture.target.width / side;
  const int64_t squares = cols * (picture.target.height / side);
  ASSERT_GT(cols, 1);
  ASSERT_GT(squares, cols);
  ASSERT_EQ(picture.pieces, squares + 1);
  ASSERT_EQ(stacked.width, side);
  ASSERT_EQ(stacked.height, side * picture.pieces);
  for (int64_t piece = 0; piece < picture.pieces; ++piece) {
    const bool last = piece == squares;
    const Image& from = last ? whole : canvas;
    const int64_t top = last ? 0 : piece / cols * side;
    const int64_t left = last ? 0 : piece % cols * side;
    for (int64_t y = 0; y < side; ++y) {
      const auto* want = from.rgb.data() + 3 * ((top + y) * from.width + left);
      const auto* got = stacked.rgb.data() + 3 * (piece * side + y) * side;
      ASSERT_TRUE(std::equal(want, want + 3 * side, got)) << piece << " " << y;
    }
  }
  // Patches of a piece are those of its square alone.
  const int64_t patches = picture.grid.patches();
  std::vector<float> of_piece(static_cast<size_t>(patches * spec.patch_elements()));
  std::vector<float> of_whole = of_piece;
  write_patches(stacked, patch_layout(spec), squares * patches, (squares + 1) * patches,
                of_piece.data());
  write_patches(whole, patch_layout(spec), 0, patches, of_whole.data());
  EXPECT_EQ(of_piece, of_whole);
  EXPECT_NE(piece_digest(picture, 0), piece_digest(picture, 1));
  EXPECT_GE(picture.io_bytes(),
            picture.file_bytes +
                static_cast<int64_t>(original.rgb.size() + canvas.rgb.size() + stacked.rgb.size()));
}

// Llama 3.2 Vision's processor and tower: tiles of 560 px, patches of 14 and a class token each,
// all 4 of them read, with rows up to a multiple of 8 (num_padding_patches of modeling_mllama.py).
TEST(TiledPictures, AreOneTokenAndTheRowsOfAllTiles) {
  PictureSpec spec;
  spec.patch_size = 14;
  spec.square_px = 560;
  spec.max_tiles = 4;
  spec.feature_slots = 0;
  Model model;
  model.cache.layers = 2;
  model.cache.cross = {false, true};
  const struct {
    int64_t width, height, tiles;
  } rows[] = {{560, 560, 1}, {1000, 500, 2}, {1024, 768, 4}, {5000, 100, 4}};
  for (const auto& row : rows) {
    const Picture picture = take(plan_picture(row.width, row.height, "p", spec, {}));
    EXPECT_EQ(picture.tokens, 1);
    EXPECT_EQ(picture.image_tokens, 1);
    EXPECT_EQ(picture.pieces, 1);
    EXPECT_EQ(picture.feature_tokens(), 4 * 1601);
    EXPECT_EQ(picture.grid.patches(), 4 * 1608);
    QuestionShape question;
    add_pictures({&picture, 1}, model, question);
    EXPECT_EQ(question.picture_keys, row.tiles * 1601) << row.width << " x " << row.height;
    EXPECT_EQ(question.picture_patches, std::vector<int64_t>{4 * 1608});
  }
  EXPECT_THAT(plan_picture(560, 560, "p.png", spec, at_least(2)).error().text(),
              AllOf(HasSubstr("1 token"), HasSubstr("--min-image-tokens")));
}

// Features of all pieces are kept, and a picture beside it does not take their place.
TEST(CutPictures, ASecondQuestionEncodesNoPieceAgain) {
  REQUIRE_GOLDEN();
  const std::string folder = testing::golden("internvl/qwen2");
  const auto loaded = take(load_model(folder));
  std::vector<Picture> pictures;
  for (const char* name : {"/images/wide.png", "/images/square.png"}) {
    pictures.push_back(
        take(open_picture(testing::read_file(folder + name), name, *loaded->model.pictures, {})));
  }
  ASSERT_EQ(pictures[0].pieces, 3);
  ASSERT_EQ(pictures[1].pieces, 1);
  Answerer::Limits limits;
  limits.context_tokens = 200;
  const KernelChoice kernels{take(kernels::select()), true, 1, kernels::KvType::kF32};
  const auto answerer = take(Answerer::create(*loaded, limits, pictures, kernels));
  AnswerOptions options;
  options.max_new_tokens = 6;
  options.ignore_eos = true;
  const auto ask = [&](Answerer& with, const char* question) {
    const std::vector<ChatTurn> turns{{"user", question, {0, 1}}};
    const auto on_text = [](std::string_view) {};
    const auto on_progress = [](std::string_view, int64_t, int64_t) {};
    return take(with.answer(turns, pictures, options, {}, {on_text, on_progress}));
  };
  EXPECT_EQ(ask(*answerer, "What is it?").encoded_pictures, 2);
  const Answer again = ask(*answerer, "How many?");
  EXPECT_EQ(again.encoded_pictures, 0);
  EXPECT_EQ(again.picture_tokens, 4 * 9);
  const auto fresh = take(Answerer::create(*loaded, limits, pictures, kernels));
  EXPECT_EQ(again.ids, ask(*fresh, "How many?").ids);
}

} // namespace
} // namespace pinhole
