// What the pages do beyond links and forms. Each of them works without any of it.

import { watchForms } from "./swap.js";
import { watchKeys } from "./keys.js";
import { watchFragments } from "./fragments.js";
import { watchPictures } from "./pictures.js";
import { watchOutside } from "./outside.js";
import { watchLoupe } from "./loupe.js";
import { watchCloser } from "./closer.js";

watchPictures();
watchForms();
watchKeys();
watchFragments();
watchOutside();
watchLoupe();
watchCloser();
