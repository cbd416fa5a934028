# pinhole_embed(TARGET HEADER FUNCTION FOLDER): the files of FOLDER become a source of TARGET that defines
# FUNCTION, declared in HEADER, which returns them by name; made again when one of them changes.
# As a script (cmake -DHEADER= -DFUNCTION= -DFOLDER= -DOUT= -P embed.cmake) it writes that source.
if(CMAKE_SCRIPT_MODE_FILE)
  file(GLOB paths ${FOLDER}/*)
  set(arrays "")
  set(rows "")
  set(index 0)
  foreach(path IN LISTS paths)
    get_filename_component(name ${path} NAME)
    file(READ ${path} hex HEX)
    file(SIZE ${path} size)
    string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
    string(APPEND arrays "constexpr unsigned char kBytes${index}[] = {${bytes}};\n")
    string(APPEND rows "    {\"${name}\", {reinterpret_cast<const char*>(kBytes${index}), ${size}}},\n")
    math(EXPR index "${index} + 1")
  endforeach()
  file(WRITE ${OUT} "#include \"${HEADER}\"\n\nnamespace pinhole::serve {\nnamespace {\n${arrays}}\n\n"
    "std::span<const EmbeddedFile> ${FUNCTION}() {\n  static const EmbeddedFile files[] = {\n${rows}  };\n"
    "  return files;\n}\n\n}\n")
  return()
endif()

set(PINHOLE_EMBED_SCRIPT ${CMAKE_CURRENT_LIST_FILE})
function(pinhole_embed target header function folder)
  file(GLOB paths CONFIGURE_DEPENDS ${folder}/*)
  set(out ${CMAKE_BINARY_DIR}/generated/${function}.cc)
  add_custom_command(OUTPUT ${out}
    COMMAND ${CMAKE_COMMAND} -DHEADER=${header} -DFUNCTION=${function} -DFOLDER=${folder} -DOUT=${out}
      -P ${PINHOLE_EMBED_SCRIPT}
    DEPENDS ${paths} ${PINHOLE_EMBED_SCRIPT} COMMENT "Embedding ${folder}" VERBATIM)
  target_sources(${target} PRIVATE ${out})
endfunction()
