// `pinhole plan --svg`: a bar of memory per model, part by part, against the limit.
//
// Readable without telling colours apart: every part has a pattern of its own beside its colour
// (Okabe and Ito's palette) and stands in the legend with its bytes, in the order of the bar.
#include "base/units.h"
#include "cli/plan_report.h"

#include <algorithm>
#include <array>
#include <fmt/format.h>

namespace pinhole::cli {

namespace {

constexpr double kWidth = 900, kLeft = 24, kBarHeight = 44, kBarSpace = 240;
constexpr double kBarWidth = kWidth - 2 * kLeft;
constexpr double kLegendColumn = 426, kLegendLine = 24;

struct Style {
  std::string_view color, pattern; // the pattern's lines; may be empty
};
constexpr std::array<Style, 8> kStyles = {{
    {"#0072B2", ""},
    {"#E69F00", "M0 8 L8 0"},
    {"#56B4E9", "M0 4 H8"},
    {"#009E73", "M0 0 L8 8"},
    {"#F0E442", "M4 0 V8"},
    {"#D55E00", "M0 4 H8 M4 0 V8"},
    {"#CC79A7", "M0 8 L8 0 M0 0 L8 8"},
    {"#999999", "M3 4 H5"},
}};

struct Segment {
  std::string name;
  int64_t bytes;
  size_t style;
};

// Names come from model files.
std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
    case '<':
      out += "&lt;";
      break;
    case '>':
      out += "&gt;";
      break;
    case '&':
      out += "&amp;";
      break;
    case '"':
      out += "&quot;";
      break;
    default:
      // A control character has no place in XML, nor has a byte that is not ASCII a certain
      // meaning.
      out += c >= ' ' && c <= '~' ? c : '?';
    }
  }
  return out;
}

std::string shown(int64_t bytes) { return format_bytes(static_cast<uint64_t>(bytes)); }

std::vector<Segment> segments_of(const PlanReport& report) {
  int64_t text = 0, embedding = 0, vision = 0;
  for (const RoleBytes& role : report.roles) {
    const bool table = role.role == Role::kTextEmbedding || role.role == Role::kTextOutput;
    (part_of(role.role) != Part::kText ? vision : table ? embedding : text) += role.bytes;
  }
  const MemoryPlan& m = report.run.memory;
  embedding -= m.looked_up_bytes;
  if (report.run.pictures.empty())
    vision = 0;
  std::vector<Segment> all = {
      {"text weights", text, 0},
      {"embedding and output", embedding, 1},
      {"vision and projector", vision, 2},
      {"KV cache", m.kv_cache_bytes, 3},
      {"compute arena", m.arena_bytes, 4},
      {"pictures", m.picture_cache_bytes + m.features_bytes + m.picture_io_bytes, 5},
      {"program", m.fixed_bytes + m.program_mapped_bytes, 6},
  };
  std::erase_if(all, [](const Segment& segment) { return segment.bytes == 0; });
  return all;
}

int64_t sum_of(const std::vector<Segment>& segments) {
  int64_t sum = 0;
  for (const Segment& segment : segments)
    sum += segment.bytes;
  return sum;
}

std::string rectangle(double x, double y, double width, double height, size_t style) {
  return fmt::format(
      "<rect x='{0:.1f}' y='{1:.1f}' width='{2:.1f}' height='{3:.1f}' fill='{4}'/>"
      "<rect x='{0:.1f}' y='{1:.1f}' width='{2:.1f}' height='{3:.1f}' fill='url(#p{5})' "
      "stroke='#ffffff' stroke-width='1'/>\n",
      x, y, width, height, kStyles[style].color, style);
}

std::string text_at(double x, double y, int size, std::string_view text,
                    std::string_view more = {}) {
  return fmt::format("<text x='{:.1f}' y='{:.1f}' font-size='{}' {}>{}</text>\n", x, y, size, more,
                     escaped(text));
}

std::string bar(const PlanReport& report, double y, double bytes_per_px) {
  const std::vector<Segment> segments = segments_of(report);
  const Verdict verdict = report.run.verdict();
  std::string out = text_at(kLeft, y + 18, 17, report.model.name, "font-weight='bold'");
  out += text_at(kWidth - kLeft, y + 18, 15,
                 fmt::format("{}: needs {}, limit {}", verdict_name(verdict),
                             shown(sum_of(segments)), shown(report.place.ram.bytes)),
                 "text-anchor='end'");
  double x = kLeft;
  const double top = y + 32;
  for (const Segment& segment : segments) {
    const double width = static_cast<double>(segment.bytes) / bytes_per_px;
    out += rectangle(x, top, width, kBarHeight, segment.style);
    x += width;
  }
  const double limit = kLeft + static_cast<double>(report.place.ram.bytes) / bytes_per_px;
  out += fmt::format("<path d='M{0:.1f} {1:.1f} V{2:.1f}' stroke='#000000' stroke-width='3' "
                     "stroke-dasharray='6 3'/>\n",
                     limit, top - 8, top + kBarHeight + 8);
  const bool at_end = limit > kWidth / 2;
  out += text_at(limit, top + kBarHeight + 24, 13, "limit: " + report.place.ram.source,
                 at_end ? "text-anchor='end'" : "");
  for (size_t i = 0; i < segments.size(); ++i) {
    const double column = kLeft + static_cast<double>(i % 2) * kLegendColumn;
    const double line = top + kBarHeight + 40 + static_cast<double>(i / 2) * kLegendLine;
    out += rectangle(column, line, 22, 16, segments[i].style);
    out += text_at(column + 32, line + 13, 14, segments[i].name);
    out += text_at(column + 300, line + 13, 14, shown(segments[i].bytes), "text-anchor='end'");
  }
  return out;
}

} // namespace

std::string report_to_svg(const std::vector<PlanReport>& reports) {
  int64_t most = 1;
  for (const PlanReport& report : reports)
    most = std::max({most, sum_of(segments_of(report)), report.place.ram.bytes});
  const double scale = static_cast<double>(most) / kBarWidth;
  const double height = 20 + kBarSpace * static_cast<double>(reports.size());
  std::string out = fmt::format("<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {0} {1}' "
                                "width='{0}' height='{1}' font-family='sans-serif' "
                                "fill='#111111' role='img'>\n"
                                "<title>Memory of each part against the limit</title>\n"
                                "<rect width='100%' height='100%' fill='#ffffff'/>\n<defs>\n",
                                kWidth, height);
  for (size_t i = 0; i < kStyles.size(); ++i)
    out += fmt::format("<pattern id='p{}' width='8' height='8' patternUnits='userSpaceOnUse'>"
                       "<path d='{}' stroke='#000000' stroke-opacity='0.45' fill='none'/>"
                       "</pattern>\n",
                       i, kStyles[i].pattern);
  out += "</defs>\n";
  double y = 12;
  for (const PlanReport& report : reports) {
    out += bar(report, y, scale);
    y += kBarSpace;
  }
  return out + "</svg>\n";
}

} // namespace pinhole::cli
