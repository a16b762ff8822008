-- migrate:up
set search_path to lookalike, public;

-- A decision is about the picture that somebody saw, not about one that replaces it later.
alter table unwanted_images add revision integer not null default 1;
create index unwanted_images_decided on unwanted_images (set_id) where state <> 'candidate';

comment on table unwanted_sets is 'Kinds of images that a cataloguer does not want to find: colour charts, blank pages, covers. Each is learned from examples.';
comment on column unwanted_sets.name is 'What people call it.';
comment on column unwanted_sets.encoder is 'The encoder whose vectors are compared.';
comment on column unwanted_sets.threshold is 'Images within this distance of an example are candidates, 0..1.';
comment on column unwanted_sets.report is 'What the threshold does to examples that were held out: `lookalike unwanted learn` prints it.';
comment on column unwanted_sets.learned_at is 'When the threshold was learned.';

comment on table unwanted_images is 'The images of each set and what people say of them; `unwanted` shows them by their keys.';
comment on column unwanted_images.set_id is 'The set.';
comment on column unwanted_images.image_id is 'The image.';
comment on column unwanted_images.example is 'Whether the set is learned from this image; an example is accepted.';
comment on column unwanted_images.nearest_id is 'The example that is nearest to it; an example itself is its own.';
comment on column unwanted_images.distance is 'Distance to that example, 0..1.';
comment on column unwanted_images.state is 'candidate: nobody has looked yet. accepted: it is unwanted, searches leave it out. fine: it is not, and never comes back as a candidate.';
comment on column unwanted_images.decided_by is 'Who said so.';
comment on column unwanted_images.decided_at is 'When.';
comment on column unwanted_images.revision is 'The revision of the image that the decision is about; of a later one it is a candidate again.';

comment on view unwanted is 'Unwanted images: select * from unwanted where state = ''candidate'' order by distance.';
comment on column unwanted.set is 'The set.';
comment on column unwanted.image is 'The key of the image.';
comment on column unwanted.state is 'candidate: nobody has looked yet. accepted: searches leave it out unless include_unwanted => true. fine: not unwanted.';
comment on column unwanted.distance is 'Distance to the nearest example, 0..1.';
comment on column unwanted.nearest_example is 'The key of that example.';
comment on column unwanted.example is 'Whether the set is learned from this image.';
comment on column unwanted.threshold is 'The threshold of the set.';
comment on column unwanted.encoder is 'The encoder whose vectors are compared.';
comment on column unwanted.decided_by is 'Who said so.';
comment on column unwanted.decided_at is 'When.';
comment on column unwanted.work is 'The work that the image belongs to.';
comment on column unwanted.title is 'Its title.';
comment on column unwanted.url is 'Where it is fetched from.';

-- migrate:down
set search_path to lookalike, public;
drop index unwanted_images_decided;
alter table unwanted_images drop column revision;
