# build/generated/quant/blocks.h: includes the block header of every row of formats.def, so that a new
# element type is one header and one row.
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS src/quant/formats.def)
file(STRINGS src/quant/formats.def format_rows REGEX "^PINHOLE_FORMAT\\(")
set(block_includes "#pragma once\n// From the rows of src/quant/formats.def by cmake/formats.cmake.\n")
foreach(row IN LISTS format_rows)
  string(REGEX MATCH "\"(quant/[a-z0-9_]+\\.h)\"\\)" header "${row}")
  if(NOT header)
    message(FATAL_ERROR "src/quant/formats.def: no \"quant/x.h\" at the end of: ${row}")
  endif()
  string(APPEND block_includes "#include \"${CMAKE_MATCH_1}\"\n")
endforeach()
file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/generated/quant/blocks.h CONTENT "${block_includes}" @ONLY)
target_include_directories(ph_quant PUBLIC ${CMAKE_BINARY_DIR}/generated)
