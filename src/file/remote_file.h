// A model on a web server, as far as planning needs it: headers, and never tensor data.
//
// A part's header is read in growing ranges into a memory file of the remote file's true size, the
// rest of which stays a hole: offsets and sizes are checked as of a local file. Of tensors only the
// place is known; their bytes must not be read (they would be zeros that take memory).
#pragma once

#include "base/result.h"
#include "file/http.h"
#include "file/model_file.h"

#include <cstdint>
#include <functional>
#include <string>

namespace pinhole {

// Bytes read and wanted at this moment; more may turn out to be wanted.
using FetchProgress = std::function<void(uint64_t bytes, uint64_t wanted)>;

// `url` is that of a GGUF (of a split one any part: the others are its siblings), or of a .json: a
// configuration, as ModelFile::open_config reads one. Nothing else is looked for on the server.
Result<ModelFile> open_remote(const std::string& url, const FetchProgress& progress = {});

} // namespace pinhole
